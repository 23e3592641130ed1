"""All metrics of the tasks in one table: what they are called, in which unit, which way is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How one entry of ``Score.metrics`` is shown and compared.

    Attributes:
        name: its key in results.
        label: what readers call it.
        unit: what one of it is; empty where the label says so.
        higher_is_better: False where less is better.
        fraction: it lies between 0 and 1: reports show per cent, and the terminal one decimal more than of others.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    fraction: bool = False

    @property
    def decimals(self) -> int:
        """Decimals of its value as a plain number."""
        return 3 if self.fraction else 2


METRICS = {
    metric.name: metric
    for metric in (
        Metric("bleu", "BLEU", "points"),
        Metric("chrf", "chrF", "points"),
        Metric("accuracy", "accuracy", "share right", fraction=True),
        Metric("f1", "F1", fraction=True),
        Metric("f1_micro", "F1, micro", fraction=True),
        Metric("f1_macro", "F1, macro", fraction=True),
        Metric("matthews", "Matthews correlation", fraction=True),
        Metric("pearson", "Pearson correlation", fraction=True),
        Metric("spearman", "Spearman correlation", fraction=True),
        Metric("perplexity", "perplexity", "per token", higher_is_better=False),
        Metric("meteor", "METEOR", fraction=True),
        Metric("strict_match", "exact match, strict", fraction=True),
        Metric("flexible_match", "exact match, flexible", fraction=True),
        Metric("acc_norm", "accuracy by length", "share right", fraction=True),
        Metric("exact_match", "exact match", "per cent"),
        Metric("answer_f1", "F1", "per cent"),
        Metric("has_answer_exact", "exact match where there is an answer", "per cent"),
        Metric("has_answer_f1", "F1 where there is an answer", "per cent"),
        Metric("no_answer_exact", "exact match where there is no answer", "per cent"),
        Metric("no_answer_f1", "F1 where there is no answer", "per cent"),
    )
}


def metric_of(name: str | None) -> Metric:
    """The row of this name; a metric of another package's task counts as a fraction of which more is better."""
    name = str(name or "metric")
    return METRICS.get(name.lower(), Metric(name, name, fraction=True))
