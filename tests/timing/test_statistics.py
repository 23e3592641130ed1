"""Medians, intervals and verdicts against what numpy and a simulation say."""

from __future__ import annotations

import random
from statistics import median

import numpy as np
import pytest

from composer.timing.statistics import Ratio, Spread, interval


def test_quartiles_are_numpys() -> None:
    values = [random.Random(1).expovariate(1) for _ in range(23)]
    spread = Spread.of(values)
    assert [spread.low, spread.median, spread.high] == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]))


@pytest.mark.parametrize("n", [6, 7, 15, 40])
def test_an_interval_holds_the_true_median_as_often_as_it_says(n: int) -> None:
    """Of a skewed distribution, as times are; the expected share is at least 95 %."""
    draw = np.random.default_rng(n)
    tries = [interval(list(draw.exponential(size=n))) for _ in range(2000)]
    held = np.mean([low <= np.log(2) <= high for low, high in tries])
    assert held > 0.95 - 3 * (0.95 * 0.05 / 2000) ** 0.5


def test_a_drift_that_meets_both_alike_leaves_the_ratio_of_pairs_alone() -> None:
    drift = [1 + 0.2 * i for i in range(9)]
    ratio = Ratio.of([2 * d for d in drift], drift)
    assert (ratio.value, ratio.low, ratio.high, ratio.noisy) == pytest.approx((2.0, 2.0, 2.0, False))
    assert median(drift) < 2 * min(drift)


@pytest.mark.parametrize(
    ("before", "noisy"),
    [
        ([1.02, 1.03, 1.02, 1.03, 1.02, 1.03, 1.02], False),  # small and sure
        ([0.99, 1.02, 1.03, 0.98, 1.04, 1.02, 1.01], True),  # the interval holds 1
        ([1.01, 1.3, 1.02, 1.3, 1.1, 1.3, 1.01], True),  # always faster, and nobody knows by how much
    ],
)
def test_too_noisy_is_an_answer(before: list[float], noisy: bool) -> None:
    assert Ratio.of(before, [1.0] * 7).noisy is noisy
