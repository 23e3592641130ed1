"""Exact counts by rank."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composer.granularity import keep_by_rank

Scores = st.lists(st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 100, width=32), min_size=1, max_size=40)
Rate = st.floats(0, 1, exclude_max=True)


def lowest_first(scores: list[float], removed: int) -> list[bool]:
    """Keep-mask by selection: remove the first of the smallest that are left, again and again."""
    keep = [True] * len(scores)
    for _ in range(removed):
        left = [i for i in range(len(scores)) if keep[i]]
        smallest = min(scores[i] for i in left)
        keep[next(i for i in left if scores[i] == smallest)] = False
    return keep


@given(Scores, Rate)
def test_the_lowest_go_and_ties_go_by_index(scores: list[float], rate: float) -> None:
    assert keep_by_rank(torch.tensor(scores), rate).tolist() == lowest_first(scores, round(rate * len(scores)))


@given(st.integers(1, 300), Rate, st.floats(-5, 5, width=32))
def test_the_count_is_exact_where_all_scores_tie(units: int, rate: float, score: float) -> None:
    keep = keep_by_rank(torch.full((units,), score), rate)
    removed = round(rate * units)
    assert (~keep).sum() == removed
    assert not keep[:removed].any()


@given(st.integers(1, 8), st.integers(1, 8), Rate, st.integers(0, 99))
def test_matrices_are_ranked_as_a_whole_in_row_major_order(rows: int, columns: int, rate: float, seed: int) -> None:
    scores = torch.randint(0, 4, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    keep = keep_by_rank(scores, rate)
    assert keep.shape == scores.shape
    assert keep.dtype == torch.bool
    assert keep.flatten().tolist() == lowest_first(scores.flatten().tolist(), round(rate * rows * columns))


def test_a_transposed_view_is_ranked_in_its_own_order() -> None:
    scores = torch.arange(6.0).reshape(2, 3).T
    assert keep_by_rank(scores, 0.5).tolist() == [[False, True], [False, True], [False, True]]


def test_infinite_scores_are_ranked() -> None:
    scores = torch.tensor([math.inf, 0.0, -math.inf, 1.0])
    assert keep_by_rank(scores, 0.5).tolist() == [True, False, False, True]


def test_halves_round_to_even_as_python_does() -> None:
    for units, rate, removed in [(5, 0.5, 2), (7, 0.5, 4), (4, 0.125, 0), (4, 0.375, 2)]:
        assert (~keep_by_rank(torch.arange(units).float(), rate)).sum() == removed


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(ValueError, match="scores hold NaN"):
        keep_by_rank(torch.tensor([1.0, math.nan]), 0.5)


def test_scores_are_left_as_they_are() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0])
    keep_by_rank(scores, 0.4)
    assert scores.tolist() == [3.0, 1.0, 2.0]
