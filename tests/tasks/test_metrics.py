"""The table of metrics knows everything that the tasks give, and says of each what it is."""

from __future__ import annotations

import pytest

from composer.tasks import TASKS
from composer.tasks.metrics.squad import squad_metrics
from composer.tasks.metrics.table import METRICS, metric_of


@pytest.mark.parametrize("task", TASKS.names())
def test_every_main_metric_is_in_the_table(task: str) -> None:
    assert TASKS.get(task).main_metric in METRICS  # type: ignore[attr-defined]


def test_every_figure_of_answers_is_in_the_table_and_in_per_cent() -> None:
    for name in squad_metrics(["a", ""], [["a"], []]):
        assert (METRICS[name].unit, METRICS[name].fraction, METRICS[name].higher_is_better) == ("per cent", False, True)


def test_only_of_perplexity_less_is_better() -> None:
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["perplexity"]


def test_metrics_are_found_whatever_their_case_and_unknown_ones_count_as_shares() -> None:
    assert metric_of("BLEU") is METRICS["bleu"]
    assert (metric_of("kappa").label, metric_of("kappa").fraction) == ("kappa", True)
    assert (metric_of("accuracy").decimals, metric_of("bleu").decimals) == (3, 2)
    assert metric_of(None).label == "metric"
