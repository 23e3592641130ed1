"""Which metrics of a task have an interval: those that its examples give, and only where they give the same value."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from composer.evaluation.intervals import intervals_of
from composer.tasks.task import Score


def of(metrics: dict[str, float], samples: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    task: Any = SimpleNamespace(options=SimpleNamespace(target_lang="de"))
    return intervals_of(Score(metrics, samples=samples), task)


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_of_two_classes_and_of_more(classes: int) -> None:
    draw = np.random.default_rng(classes)
    gold = draw.integers(classes, size=200)
    answer = np.where(draw.random(200) < 0.7, gold, draw.integers(classes, size=200))
    f1 = float(f1_score(gold, answer, average="binary" if classes == 2 else "macro"))
    rows = [
        {"gold": int(g), "answer": int(a), "right": bool(g == a), "classes": classes}
        for g, a in zip(gold, answer, strict=True)
    ]
    found = of({"accuracy": float((gold == answer).mean()), "f1": f1}, rows)
    assert found.keys() == {"accuracy", "f1"}
    low, high = found["f1"]
    assert low < f1 < high
    assert high - low == pytest.approx(0.12, abs=0.04)


def test_perplexity_is_drawn_by_windows() -> None:
    losses = np.random.default_rng(0).normal(3, 0.5, 100)
    value = float(np.exp(losses.mean()))
    low, high = of({"perplexity": value}, [{"nats": 10 * x, "tokens": 10} for x in losses])["perplexity"]
    assert (np.log(low), np.log(high)) == pytest.approx((np.log(value) - 0.1, np.log(value) + 0.1), abs=0.03)


def test_another_figure_of_the_same_name_has_none() -> None:
    rows = [{"gold": i % 2, "answer": 1, "right": bool(i % 2), "classes": 2} for i in range(10)]
    assert of({"accuracy": 50.0}, rows) == {}
    assert of({"accuracy": 0.5}, []) == {}
