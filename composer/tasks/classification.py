"""Classification of texts and of pairs of texts: cross entropy per example, accuracy and F1."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError, ModelError
from ..tensors.batches import by_length
from ..tensors.forward import answering, to_device_of
from .batching import check_length, padded_inputs, tokenise, usual_length
from .data.formats import Table, few
from .data.labels import Labels
from .data.options import SENTENCE, DataOptions
from .data.splits import Row, find_column, read_split, text_problem
from .special_tokens import pad_id, settle_padding
from .task import Batch, Examples, Feature, Score, Split, input_lengths

TEXT_COLUMNS = ("sentence", "text", "review", "content")
LABEL_COLUMNS = ("label", "labels", "gold_label", "sentiment", "target", "is_duplicate", "Quality", "score")
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question", "sentence"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("#1 String", "#2 String"),
)
"""The layouts of GLUE: MRPC, RTE, WNLI (and MNLI as first published); QNLI; MNLI; QQP; MRPC as first published."""


class ClassificationTask:
    """Texts, or pairs of texts, with one label each.

    A table whose columns are one of :data:`PAIR_COLUMNS`, or for which a pair column is named, holds pairs. Pairs that
    are too long lose tokens of the longer text first. Features hold what the tokenizer names as the model's inputs
    (unpadded, without the attention mask) and ``labels``, the class id.

    Raises:
        DataError: a length that the model cannot take.
        ModelError: no padding token, fewer than two labels, a head for several labels of a text
            (:mod:`composer.tasks.multi_label`) or for scores.
    """

    name = "classification"
    main_metric = "accuracy"
    problem_types: tuple[str | None, ...] = (None, "single_label_classification")

    def __init__(self, options: DataOptions, tokenizer: Any, config: dict[str, Any]) -> None:
        self.options = options
        self.scoring: dict[str, Any] = {}
        self._check_problem(config)
        self.labels = Labels.of(config)
        self._tokenizer = tokenizer
        self._inputs = [name for name in tokenizer.model_input_names if name != "attention_mask"]
        self._pad = pad_id(tokenizer, config)
        self._length = usual_length(options.max_source_length, SENTENCE, tokenizer, config)
        check_length("max_source_length", self._length, tokenizer, config)

    def load(self, split: Split) -> Examples:
        """Read, cut to size and tokenise a split; ``DataError`` says what is wrong with files or labels."""
        read = read_split(self.options, split, self._pick)
        names = [row[-1] for row in read.rows]
        features, cut = self._encode([row[:-1] for row in read.rows])
        for feature, name in zip(features, names, strict=True):
            if name in self.labels.ids:  # a text with several labels names none of them alone
                feature["labels"] = self.labels.ids[name]
        return Examples(split, features, names, read.digest, sum(cut), read.source)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Inputs with ``attention_mask``, each (batch, length); ``labels`` (batch,)."""
        labels: list[Any] | None = [f["labels"] for f in features] if "labels" in features[0] else None
        batch = padded_inputs([{k: v for k, v in f.items() if k != "labels"} for f in features], self._pad)
        if labels is not None:
            batch["labels"] = torch.tensor(labels, dtype=torch.long)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy over the examples in nats; and how many they are."""
        return self._entropy(self._logits(model, batch), batch["labels"]), len(batch["labels"])

    def real_tokens(self, batch: Batch) -> dict[str, Tensor]:
        """Bool mask (batch, length), the same for encoder and decoder: either may be what reads the text."""
        mask = batch["attention_mask"].bool()
        return {"encoder": mask, "decoder": mask}

    def asked(self, batch: Batch) -> None:
        """All answers: one for each example."""

    def score(self, model: nn.Module, data: Examples, *, batch_size: int = 64) -> Score:
        """Accuracy and F1, both 0 to 1.

        F1 is that of class 1 for two labels, else the plain mean over the classes that occur.
        """
        from sklearn.metrics import accuracy_score, f1_score

        start = time.perf_counter()
        logits = self._all_logits(model, data.features, batch_size)
        answers = logits.argmax(dim=1).tolist()
        seconds = time.perf_counter() - start
        truth = [self.labels.ids[name] for name in data.references]
        loss = self._entropy(logits, torch.tensor(truth)).item()
        average = "binary" if len(self.labels) == 2 else "macro"
        metrics = {
            "accuracy": float(accuracy_score(truth, answers)),
            "f1": float(f1_score(truth, answers, average=average, zero_division=0)),
        }
        details = {
            "examples": len(data),
            "seconds": seconds,
            "seconds_per_example": seconds / max(1, len(data)),
            "f1_average": average,
            "majority_accuracy": max(Counter(truth).values(), default=0) / max(1, len(truth)),
        }
        classes = len(self.labels)
        pairs = zip(truth, answers, strict=True)
        samples = [{"gold": gold, "answer": a, "right": gold == a, "classes": classes} for gold, a in pairs]
        return Score(metrics, details, loss, samples)

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """The likeliest label of each text with its probability: ``positive (0.98)``; a tab parts a pair."""
        best = self._probabilities(model, self._features_of(texts), batch_size).max(dim=1)
        answers = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [f"{self.labels.names[i]} ({probability:.2f})" for i, probability in answers]

    def chance(self) -> float | None:
        """Loss per example of a uniform guess: log of the number of labels."""
        return math.log(len(self.labels))

    def _features_of(self, texts: Sequence[str]) -> list[Any]:
        """Features of texts as a user writes them: a tab parts a pair."""
        pairs = [tuple(text.split("\t", 1)) for text in texts]
        return [feature for pair in pairs for feature in self._encode([pair])[0]]

    def _encode(self, texts: Sequence[Row]) -> tuple[list[Any], list[bool]]:
        """Features of rows that have all one text or all two, and whether each was cut."""
        firsts, *seconds = ([row[i] for row in texts] for i in range(len(texts[0]) if texts else 1))
        return tokenise(self._tokenizer, firsts, self._length, self._inputs, *seconds)

    def _all_logits(self, model: nn.Module, features: Sequence[Feature], batch_size: int) -> Tensor:
        """Of all these examples, (examples, labels), on the CPU."""
        out = torch.zeros(len(features), len(self.labels))
        lengths = input_lengths(features)
        with answering(model):
            for chosen in by_length(lengths, batch_size):
                batch = to_device_of(model, self.collate([features[i] for i in chosen]))
                out[chosen] = self._logits(model, batch).cpu()
        return out

    def _probabilities(self, model: nn.Module, features: Sequence[Feature], batch_size: int) -> Tensor:
        return self._shares(self._all_logits(model, features, batch_size))

    def _entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean loss, in nats."""
        return F.cross_entropy(logits, labels)

    def _shares(self, logits: Tensor) -> Tensor:
        """Probabilities (batch, labels)."""
        return logits.softmax(dim=1)

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        settle_padding(model, self._pad)
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits: Tensor = model(**inputs).logits
        return logits.float()

    def _pick(self, table: Table) -> list[Row]:
        columns = [*self._text_columns(table), find_column(table, self.options.label_column, LABEL_COLUMNS, "label")]
        missing = [problem for column in columns if isinstance(column, DataError) for problem in column.problems]
        if missing:
            raise DataError(missing)
        *texts, label = (str(name) for name in columns)
        checks = (text_problem(table, text, row) for row in range(len(table)) for text in texts)
        problems = few([problem for problem in checks if problem])
        names, wrong = self._resolve(table, label)
        if problems or wrong:
            raise DataError([*problems, *few(wrong)])
        cells = zip(*(table.columns[text] for text in texts), strict=True)
        return [(*(cell or "" for cell in row), name) for row, name in zip(cells, names, strict=True)]

    def _resolve(self, table: Table, column: str) -> tuple[list[str], list[str]]:
        """The reference of each row, and what is wrong with labels."""
        return self.labels.resolve(table, column)

    def _text_columns(self, table: Table) -> list[str | DataError]:
        """The column of texts, or the two of pairs."""
        first, second = self.options.text_column, self.options.pair_column
        usual = next((pair for pair in PAIR_COLUMNS if set(pair) <= set(table.columns)), None)
        if first is None and second is None and usual:
            return list(usual)
        if second is None:
            return [find_column(table, first, TEXT_COLUMNS, "text")]
        firsts = tuple(a for a, b in PAIR_COLUMNS if b == second)
        return [
            find_column(table, first, (*firsts, *TEXT_COLUMNS), "text"),
            find_column(table, second, (), "pair"),
        ]

    def _check_problem(self, config: dict[str, Any]) -> None:
        """Softmax over the labels of a head that was trained with a sigmoid for each would be quietly wrong."""
        kind = config.get("problem_type")
        if kind not in self.problem_types:
            raise ModelError(
                f"config.json: problem_type: got {kind!r}; allowed for --task {self.name}: {self.problem_types[-1]}"
            )
