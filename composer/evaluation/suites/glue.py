"""GLUE (Wang et al. 2018): nine tasks on sentences and pairs, each with a metric of its own, for classifiers.

A model has one head, so it is asked the tasks whose labels are its own: a folder for each task, as they are fine-tuned.
Problems are those of the validation split; GLUE keeps the labels of its test splits back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, ModelError, shown
from ...models.folder import BaseModel
from ...progress import Progress
from ...tasks.data.formats import MISSING, Table, few
from ...tasks.data.labels import Labels
from ...tasks.data.options import SENTENCE
from ...tensors.batches import by_length
from ..uncertainty import Measure, mean_of
from .places import Place, rows_of
from .suite import Problems, Sample, Session, Subject, Suite, SuiteOptions, SuiteTask

if TYPE_CHECKING:
    from torch import nn

SCORES = (0.0, 5.0)
"""Range of STS-B's similarities."""


def _counts(samples: Sequence[Sample]) -> np.ndarray:
    """Of two classes: (true positive, false positive, false negative, true negative) of each sample."""
    gold, answer = (np.array([sample[key] for sample in samples], dtype=int) for key in ("gold", "answer"))
    return np.stack([gold & answer, (1 - gold) & answer, gold & (1 - answer), (1 - gold) & (1 - answer)], 1).astype(
        float
    )


def _f1(sums: np.ndarray) -> Any:
    tp, fp, fn, _ = (sums[..., i] for i in range(4))
    return np.divide(2 * tp, 2 * tp + fp + fn, out=np.zeros_like(tp), where=2 * tp + fp + fn > 0)


def _matthews(sums: np.ndarray) -> Any:
    tp, fp, fn, tn = (sums[..., i] for i in range(4))
    below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, below, out=np.zeros_like(tp), where=below > 0)


def _scores(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([(sample["gold"], sample["answer"]) for sample in samples], dtype=float).reshape(-1, 2)


def _correlation(columns: np.ndarray) -> float:
    """Pearson's, of two columns; 0 where one of them never changes."""
    from scipy.stats import pearsonr

    return 0.0 if _is_constant(columns) else float(pearsonr(columns[:, 0], columns[:, 1]).statistic)


def _rank_correlation(columns: np.ndarray) -> float:
    """Spearman's, of two columns; 0 where one of them never changes."""
    from scipy.stats import spearmanr

    return 0.0 if _is_constant(columns) else float(spearmanr(columns[:, 0], columns[:, 1]).statistic)


def _is_constant(columns: np.ndarray) -> bool:
    return bool((np.ptp(columns, axis=0) == 0).any())


ACCURACY = mean_of("accuracy", "right")
F1 = Measure("f1", _counts, _f1)
MATTHEWS = Measure("matthews", _counts, _matthews)
PEARSON = Measure("pearson", _scores, _correlation, of_rows=True)
SPEARMAN = Measure("spearman", _scores, _rank_correlation, of_rows=True)


@dataclass
class _Asked(Session):
    """Tokenised problems, and what the model's outputs mean."""

    problems: Problems | None = None
    model: nn.Module | None = None
    pad: int = 0
    features: Sequence[Any] = ()
    classes: Sequence[int] = ()
    """Of each output of the head, the class of the task."""


class GlueTask(SuiteTask):
    """One task of GLUE; ``labels`` are its classes in GLUE's order, none where it asks for a score."""

    suite = "glue"
    heads = ("classification",)

    def __init__(
        self,
        name: str,
        heading: str,
        columns: tuple[str, ...],
        labels: tuple[str, ...],
        measures: tuple[Measure, ...] = (ACCURACY,),
        splits: tuple[str, ...] = ("validation", "dev", "valid", "val"),
        folder: str | None = None,
        averaged: int = 1,
    ) -> None:
        self.name, self.heading, self.columns, self.labels, self.measures = name, heading, columns, labels, measures
        self.averaged = averaged
        stem = folder or name
        # As on the hub, in GLUE's own archive, and beside other data.
        folders = (f"glue/{stem}", stem, f"glue/{heading}", f"GLUE/{heading}", heading)
        self.place = Place(name, tuple(dict.fromkeys(folders)), splits, f"nyu-mll/glue:{folder or name}")

    def load(self, options: SuiteOptions) -> Problems:
        """Sentences or pairs with the number of their class, or their score."""
        table = self.place.table(options.data)
        label = next((name for name in ("label", "gold_label", "score") if name in table.columns), "label")
        rows = rows_of(table, [*self.columns, label])
        golds = self._classes(table, label) if self.labels else _read_scores(table, label)
        texts = [[str(row[column]) for column in self.columns] for row in rows]
        read = [
            {"id": i, "prompt": "\t".join(text), "texts": text, "gold": gold}
            for i, (text, gold) in enumerate(zip(texts, golds, strict=True))
        ]
        return Problems(read, table.source).first(options.limit)

    def refusal(self, base: BaseModel) -> str | None:
        """A head of another kind, or whose labels are those of something else."""
        if reason := super().refusal(base):
            return reason
        outputs = _outputs(base.config)
        if not self.labels:
            return None if len(outputs) == 1 else f"{base.name} has {len(outputs)} labels; needed: one output, a score"
        if self._order(outputs) is None:
            wanted = ", ".join(self.labels)
            return (
                f"{base.name} has the labels {', '.join(outputs)}; needed: {wanted}, or {len(self.labels)} unnamed ones"
            )
        return None

    def open(self, subject: Subject, problems: Problems, options: SuiteOptions, progress: Progress) -> Session:
        """Tokenise; batches are of similar length."""
        from ...tasks.batching import tokenise, usual_length
        from ...tasks.special_tokens import pad_id, settle_padding

        tokenizer, config, model = subject.tokenizer, subject.base.config, subject.model
        length = usual_length(None, SENTENCE, tokenizer, config)
        inputs = [name for name in tokenizer.model_input_names if name != "attention_mask"]
        texts = [row["texts"] for row in problems.rows]
        seconds = [[text[1] for text in texts]] if len(self.columns) > 1 else []
        features, cut = tokenise(tokenizer, [text[0] for text in texts], length, inputs, *seconds)
        pad = pad_id(tokenizer, config)
        settle_padding(model, pad)
        batches = list(by_length([len(feature["input_ids"]) for feature in features], options.batch_size))
        classes = self._order(_outputs(config)) or ()
        details = {"max_length": length, "cut": sum(cut)}
        return _Asked(batches, details, problems, model, pad, features, classes)

    def answer(self, session: Session, batch: Sequence[int]) -> list[Sample]:
        """The likeliest class, or the score."""
        from ...tasks.batching import padded_inputs
        from ...tensors.forward import answering, to_device_of

        assert isinstance(session, _Asked)
        assert session.model is not None
        assert session.problems is not None
        with answering(session.model):
            chosen = [session.features[i] for i in batch]
            inputs = to_device_of(session.model, padded_inputs(chosen, session.pad))
            logits = session.model(**inputs).logits.float().cpu()
        if not logits.isfinite().all():
            raise ModelError(f"{self.name}: the model's answers are not finite; nothing can be measured")
        rows = [{key: session.problems.rows[i][key] for key in ("id", "prompt", "gold")} for i in batch]
        if not self.labels:
            return [{**row, "answer": score} for row, score in zip(rows, logits[:, 0].tolist(), strict=True)]
        answers = [session.classes[i] for i in logits.argmax(dim=1).tolist()]
        return [{**row, "answer": a, "right": a == row["gold"]} for row, a in zip(rows, answers, strict=True)]

    def shown(self, sample: Sample) -> str:
        """The label, or the score."""
        return self.labels[sample["answer"]] if self.labels else f"{sample['answer']:.2f}"

    def gold(self, sample: Sample) -> str:
        """The label, or the score."""
        return self.labels[sample["gold"]] if self.labels else f"{sample['gold']:.2f}"

    def chance(self, problems: Problems, base: BaseModel) -> dict[str, float]:
        """Of always answering the commonest class; of F1, always class 1; a correlation is then 0."""
        counts = Counter(row["gold"] for row in problems.rows)
        positive = counts[1] / max(1, len(problems))
        common = max(counts.values(), default=0) / max(1, len(problems))
        known = {
            "accuracy": common,
            "f1": 2 * positive / (1 + positive),
            "matthews": 0.0,
            "pearson": 0.0,
            "spearman": 0.0,
        }
        return {measure.name: known[measure.name] for measure in self.measures}

    def _order(self, outputs: Sequence[str]) -> list[int] | None:
        """The class of each output, by its name; of unnamed ones by its number. None where they are other labels."""
        if len(outputs) != len(self.labels):
            return None
        plain = [name.casefold().replace(" ", "_").replace("-", "_") for name in outputs]
        if sorted(plain) == sorted(self.labels):
            return [self.labels.index(name) for name in plain]
        unnamed = all(name in (f"label_{i}", str(i)) for i, name in enumerate(plain))
        return list(range(len(plain))) if unnamed else None

    def _classes(self, table: Table, column: str) -> list[int]:
        labels = Labels(self.labels)
        names, wrong = labels.resolve(table, column)
        if wrong:
            raise DataError(
                few([problem.replace("no label of the model", f"no label of {self.name}") for problem in wrong])
            )
        return [labels.ids[name] for name in names]


def _outputs(config: dict[str, Any]) -> list[str]:
    """Names of a head's outputs, by number."""
    by_id = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    by_id = by_id or {int(value): str(name) for name, value in (config.get("label2id") or {}).items()}
    count = len(by_id) or int(config.get("num_labels") or 2)
    return [by_id.get(i, f"LABEL_{i}") for i in range(count)]


def _read_scores(table: Table, column: str) -> list[float]:
    scores: list[float] = []
    problems: list[str] = []
    for i, cell in enumerate(table.columns[column]):
        try:
            score = math.nan if cell is MISSING or isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError):
            score = math.nan
        if not SCORES[0] <= score <= SCORES[1]:
            problems.append(f"{table.at(i)}: {column} is {shown(cell)}; allowed: a score from 0 to 5")
        scores.append(score)
    if problems:
        raise DataError(few(problems))
    return scores


TASKS = (
    GlueTask("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), (MATTHEWS, ACCURACY)),
    GlueTask("sst2", "SST-2", ("sentence",), ("negative", "positive")),
    GlueTask("mrpc", "MRPC", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), (F1, ACCURACY), averaged=2),
    GlueTask("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), (F1, ACCURACY), averaged=2),
    GlueTask("stsb", "STS-B", ("sentence1", "sentence2"), (), (SPEARMAN, PEARSON), averaged=2),
    GlueTask(
        "mnli",
        "MNLI",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        splits=("validation_matched", "dev_matched", "validation", "dev"),
    ),
    GlueTask(
        "mnli-mm",
        "MNLI-mm",
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        splits=("validation_mismatched", "dev_mismatched"),
        folder="mnli",
    ),
    GlueTask("qnli", "QNLI", ("question", "sentence"), ("entailment", "not_entailment")),
    GlueTask("rte", "RTE", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
    GlueTask("wnli", "WNLI", ("sentence1", "sentence2"), ("not_entailment", "entailment")),
)

SUITE = Suite(
    "glue",
    "Language understanding (GLUE)",
    TASKS,
    averages=(
        *((name,) for name in ("cola", "sst2", "mrpc", "qqp", "stsb")),
        ("mnli", "mnli-mm"),
        *((name,) for name in ("qnli", "rte", "wnli")),
    ),
)
