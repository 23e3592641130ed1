"""Standard errors, intervals and paired tests against scipy, formulas and drawn data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from composer.evaluation.uncertainty import Measure, difference, estimate, holm, mcnemar, mean_of, wilson

RIGHT = mean_of("accuracy", "right")


def samples(values: Any) -> list[dict[str, Any]]:
    return [{"id": i, "right": value} for i, value in enumerate(values)]


@pytest.mark.parametrize(("right", "count"), [(0, 7), (3, 11), (50, 60), (9, 9)])
def test_a_share_has_the_interval_of_wilson(right: int, count: int) -> None:
    wanted = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert wilson(right / count, count) == pytest.approx((wanted.low, wanted.high))
    got = estimate(RIGHT, samples([i < right for i in range(count)]))
    assert (got.value, got.low, got.high) == pytest.approx((right / count, wanted.low, wanted.high))
    assert got.error == pytest.approx(stats.sem([i < right for i in range(count)]))


def test_a_share_of_some_examples_has_the_interval_of_these() -> None:
    """As exact match where there is no answer."""
    part = Measure("exact", lambda rows: np.array([(r["right"], r["asked"]) for r in rows], dtype=float), RIGHT.value)
    rows = [{"right": i < 3, "asked": i < 11} for i in range(40)]
    got, wanted = estimate(part, rows), estimate(RIGHT, samples([i < 3 for i in range(11)]))
    assert (got.value, got.error, got.low, got.high) == (wanted.value, wanted.error, wanted.low, wanted.high)


def test_a_mean_has_its_standard_error_and_a_bootstrap_interval_that_agrees_with_it() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    got = estimate(RIGHT, samples(values))
    assert (got.value, got.error) == pytest.approx((values.mean(), stats.sem(values)))
    assert got.low == pytest.approx(values.mean() - 1.96 * stats.sem(values), abs=0.02)
    assert got.high == pytest.approx(values.mean() + 1.96 * stats.sem(values), abs=0.02)
    assert got == estimate(RIGHT, samples(values)), "the same seed draws the same"
    assert got != estimate(RIGHT, samples(values), seed=1)


def test_per_cent_are_a_hundred_times_the_share() -> None:
    share, per_cent = (estimate(mean_of("x", "right", scale), samples([1, 0, 1, 1])) for scale in (1.0, 100.0))
    for name in ("value", "error", "low", "high"):
        assert getattr(per_cent, name) == pytest.approx(100 * getattr(share, name))


def test_of_one_example_nothing_is_sure() -> None:
    got = estimate(RIGHT, samples([1]))
    assert (got.value, got.error, got.low, got.high, got.how) == (1.0, None, None, None, "one example")


def test_a_measure_that_is_no_sum_is_computed_anew_for_every_draw() -> None:
    def columns(rows: Any) -> np.ndarray:
        return np.array([(row["right"],) for row in rows], dtype=float)

    values = np.random.default_rng(2).normal(size=200)
    got = estimate(Measure("median", columns, lambda c: np.median(c), of_rows=True), samples(values))
    # The asymptotic standard error of a normal's median.
    assert got.error == pytest.approx(math.sqrt(math.pi / 2 / 200), rel=0.3)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (2, 9), (40, 60), (5, 5)])
def test_mcnemar_is_the_binomial_test_of_those_that_differ(b: int, c: int) -> None:
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))


def test_two_models_on_the_same_examples_are_compared_in_pairs() -> None:
    first = samples([1] * 60 + [0] * 40)
    better = samples([1] * 60 + [1] * 12 + [0] * 28)
    got = difference(RIGHT, first, better)
    assert (got.how, got.only_first, got.only_second) == ("McNemar exact", 0, 12)
    assert (got.value, got.p) == pytest.approx((0.12, 2 / 2**12))
    assert got.low is not None
    assert got.high is not None
    assert 0 < got.low < 0.12 < got.high
    # Half a problem more of each kind: 13 of 102, and the variance of a difference of two shares of the same problems.
    middle, half = 12 / 102, 1.959964 * math.sqrt(0.5 + 12.5 - 12**2 / 102) / 102
    assert (got.low, got.high) == pytest.approx((middle - half, middle + half))
    same = difference(RIGHT, first, first)
    assert (same.value, same.p) == (0.0, 1.0)
    assert same.high == pytest.approx(1.959964 / 102), "none of 100 told them apart: of others some still could"
    assert same.low == pytest.approx(-same.high)


def test_a_paired_bootstrap_sees_what_single_intervals_hide() -> None:
    draw = np.random.default_rng(3)
    base = draw.normal(0, 10, 300)
    first, second = samples(base), samples(base + draw.normal(0.5, 1, 300))
    got = difference(RIGHT, first, second)
    assert got.how == "paired bootstrap"
    assert got.p is not None
    assert got.p < 0.001
    a, b = estimate(RIGHT, first), estimate(RIGHT, second)
    assert b.low is not None
    assert a.high is not None
    assert b.low < a.high


def test_the_p_of_the_bootstrap_is_even_where_nothing_differs() -> None:
    draw = np.random.default_rng(4)
    ps = [difference(RIGHT, samples(a), samples(b)).p for a, b in draw.normal(size=(60, 2, 40))]
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_holm_is_never_below_the_single_p_and_at_most_bonferroni() -> None:
    ps = [0.04, 0.001, 0.5, 0.02]
    assert holm(ps) == pytest.approx([0.08, 0.004, 0.5, 0.06])
    assert all(p <= adjusted <= min(1, 4 * p) for p, adjusted in zip(ps, holm(ps), strict=True))
