"""What all translation tasks share, whatever their words are made of: sentence pairs from files, BLEU and chrF."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import DataError
from ..tensors.batches import by_length
from ..tensors.forward import answering, to_device_of
from .batching import IGNORED
from .data.formats import Table, few
from .data.options import SENTENCE, DataOptions
from .data.splits import Row, find_column, read_split, text_problem
from .task import Batch, Examples, Feature, Score, Split

SHOWN_SAMPLES = 3

Encoded = tuple[list[list[int]], list[bool]]
"""Tokens of each text, and whether it was cut."""


class SentencePairsTask(ABC):
    """Base of the translation tasks; ``options`` name the languages of the files.

    Features hold ``input_ids`` (source) and ``labels`` (target), both unpadded.
    """

    name: str
    main_metric = "bleu"
    lowercase = False
    """Whether metrics compare without case, for models that know none."""

    def __init__(self, options: DataOptions) -> None:
        self.options = options
        self.scoring: dict[str, Any] = {"beams": options.num_beams}
        self.target_length = options.max_target_length or SENTENCE

    @property
    def target_length(self) -> int:
        """Tokens kept of a target, and generated at most: a setting of the score too."""
        return int(self.scoring["max_new_tokens"])

    @target_length.setter
    def target_length(self, length: int) -> None:
        self.scoring["max_new_tokens"] = length

    @abstractmethod
    def encode_sources(self, texts: Sequence[str]) -> Encoded:
        """Tokens of source sentences."""

    @abstractmethod
    def encode_targets(self, texts: Sequence[str]) -> Encoded:
        """Tokens of target sentences."""

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> Batch:
        """As :meth:`composer.tasks.task.Task.collate`; without ``labels`` where the features have none."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy over the label tokens in nats, no label smoothing; and how many they are."""

    @abstractmethod
    def generate(self, model: nn.Module, batch: Batch) -> list[str]:
        """Translations of a batch without labels, on the model's device, in its order."""

    @abstractmethod
    def source_text(self, tokens: Sequence[int]) -> str:
        """The source sentence that was encoded as ``tokens``."""

    @abstractmethod
    def chance(self) -> float | None:
        """Loss per token of a uniform guess: log of the vocabulary's size."""

    def load(self, split: Split) -> Examples:
        """Read, cut to size and tokenise a split; ``DataError`` says what is wrong with the files."""
        read = read_split(self.options, split, self._pick, parallel=True)
        targets = [target for _, target in read.rows]
        sources, cut = self.encode_sources([source for source, _ in read.rows])
        labels, cut_labels = self.encode_targets(targets)
        features: list[Feature] = [{"input_ids": a, "labels": b} for a, b in zip(sources, labels, strict=True)]
        truncated = sum(a or b for a, b in zip(cut, cut_labels, strict=True))
        return Examples(split, features, targets, read.digest, truncated, read.source)

    def real_tokens(self, batch: Batch) -> dict[str, Tensor]:
        """Bool masks: encoder (batch, source length), decoder (batch, target length)."""
        return {"encoder": batch["attention_mask"].bool(), "decoder": self.asked(batch)}

    def asked(self, batch: Batch) -> Tensor:
        """Real tokens of the targets: (batch, length), bool."""
        return batch["labels"] != IGNORED

    def score(self, model: nn.Module, data: Examples, *, batch_size: int = 64) -> Score:
        """Corpus BLEU and chrF (0 to 100) of generated translations, as sacrebleu defines them."""
        from sacrebleu.metrics import BLEU, CHRF

        start = time.perf_counter()
        answers = self._translated(model, [feature["input_ids"] for feature in data.features], batch_size)
        seconds = time.perf_counter() - start
        references = [list(data.references)]
        bleu = BLEU(trg_lang=self._metric_language(), lowercase=self.lowercase)
        chrf = CHRF(lowercase=self.lowercase)
        metrics = {
            "bleu": float(bleu.corpus_score(answers, references).score),
            "chrf": float(chrf.corpus_score(answers, references).score),
        }
        details = {
            "examples": len(data),
            "seconds": seconds,
            "seconds_per_example": seconds / max(1, len(data)),
            "num_beams": self.options.num_beams,
            "max_new_tokens": self.target_length,
            "bleu_signature": str(bleu.get_signature()),
            "chrf_signature": str(chrf.get_signature()),
            "samples": self._samples(data, answers),
        }
        return Score(metrics, details, samples=self._compared(data.references, answers))

    def _compared(self, references: Sequence[str], answers: Sequence[str]) -> list[dict[str, str]]:
        """Each answer beside its reference, as metrics compare them."""
        if self.lowercase:
            references, answers = ([text.lower() for text in texts] for texts in (references, answers))
        return [{"gold": gold, "answer": answer} for gold, answer in zip(references, answers, strict=True)]

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """Translations of the texts, in their order."""
        return self._translated(model, self.encode_sources(texts)[0], batch_size)

    def _translated(self, model: nn.Module, sources: Sequence[Any], batch_size: int) -> list[str]:
        answers = [""] * len(sources)
        with answering(model):
            for chosen in by_length([len(source) for source in sources], batch_size):
                batch = to_device_of(model, self.collate([{"input_ids": sources[i]} for i in chosen]))
                for i, text in zip(chosen, self.generate(model, batch), strict=True):
                    answers[i] = text
        return answers

    def _samples(self, data: Examples, answers: Sequence[str]) -> list[dict[str, str]]:
        shown: list[Any] = [feature["input_ids"] for feature in data.features[:SHOWN_SAMPLES]]
        rows = zip(map(self.source_text, shown), data.references, answers, strict=False)
        return [{"source": s, "reference": r, "hypothesis": h} for s, r, h in rows]

    def _metric_language(self) -> str:
        # Only Chinese has a tokenizer of its own inside sacrebleu; Japanese and Korean need extra packages.
        return "zh" if self.options.target_lang.lower().startswith("zh") else ""

    def _pick(self, table: Table) -> list[Row]:
        table = _unfold(table, self.options)
        languages = self.options.source_lang, self.options.target_lang
        columns = [
            find_column(table, self.options.source_column, (languages[0], "source", "src"), "source"),
            find_column(table, self.options.target_column, (languages[1], "target", "tgt"), "target"),
        ]
        missing = [problem for column in columns if isinstance(column, DataError) for problem in column.problems]
        if missing:
            raise DataError(missing)
        names = [str(name) for name in columns]
        checks = (text_problem(table, name, row) for row in range(len(table)) for name in names)
        problems = [problem for problem in checks if problem]
        if problems:
            raise DataError(few(problems))
        return [(a or "", b or "") for a, b in zip(*(table.columns[name] for name in names), strict=True)]


def _unfold(table: Table, options: DataOptions) -> Table:
    """Make columns of the ``{"en": ..., "de": ...}`` that a column ``translation`` often holds."""
    folded = table.columns.get("translation")
    if options.source_column or options.target_column or not folded:
        return table
    if not all(isinstance(row, dict) for row in folded):
        return table
    languages = dict.fromkeys(language for row in folded for language in row)
    columns = {language: [row.get(language) for row in folded] for language in languages}
    return Table(table.place, table.source, columns, table.lines)
