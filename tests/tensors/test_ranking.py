"""Exact counts by rank."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composer.models.family import linear
from composer.scheme.shapes import parse_shape
from composer.tensors.ranking import Keep, keep_by_rank, spread, totals

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


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Whole numbers with many ties."""
    return torch.randint(0, 4, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()


@given(st.integers(1, 8), st.integers(1, 8), Rate, st.integers(0, 99))
def test_rows_give_alike_and_the_count_is_that_of_the_matrix(rows: int, columns: int, rate: float, seed: int) -> None:
    scores = matrix(rows, columns, seed)
    (keep,) = Keep(parse_shape("per-row"), rate)([scores])
    going = (~keep).sum(1).tolist()
    assert sum(going) == round(rate * rows * columns)
    assert max(going) - min(going) <= 1
    assert [row.tolist() for row in keep] == [
        lowest_first(row.tolist(), n) for row, n in zip(scores, going, strict=True)
    ]


@given(st.integers(1, 5), st.integers(1, 4), st.integers(2, 6), st.data())
def test_n_of_m_are_kept_of_every_group_of_every_row(rows: int, groups: int, m: int, data: st.DataObject) -> None:
    n, seed = data.draw(st.integers(1, m - 1)), data.draw(st.integers(0, 99))
    scores = matrix(rows, groups * m, seed)
    (keep,) = Keep(parse_shape(f"{n}:{m}"), 1 - n / m)([scores])
    wanted = [lowest_first(group.tolist(), m - n) for group in scores.reshape(-1, m)]
    assert keep.reshape(-1, m).tolist() == wanted


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3), Rate, st.integers(0, 99))
def test_a_global_ranking_is_that_of_all_scores_in_one_row(
    shapes: list[tuple[int, int]], rate: float, seed: int
) -> None:
    scores = [matrix(*shape, seed + i) for i, shape in enumerate(shapes)]
    kept = Keep(parse_shape("global"), rate)(scores)
    flat = [value for one in scores for value in one.flatten().tolist()]
    assert [value for one in kept for value in one.flatten().tolist()] == lowest_first(flat, round(rate * len(flat)))
    assert [one.shape for one in kept] == [one.shape for one in scores]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), Rate, st.integers(0, 99))
def test_blocks_rows_and_columns_go_whole(r: int, c: int, down: int, across: int, rate: float, seed: int) -> None:
    rows, columns = r * down, c * across
    part, value = linear("l", rows, columns, bias=False, stream="encoder"), matrix(rows, columns, seed)
    blocks = value.unfold(0, r, r).unfold(1, c, c).sum((2, 3))
    for name, wanted in {f"{r}x{c}": blocks, "row": value.sum(1), "column": value.sum(0)}.items():
        shape = parse_shape(name)
        pooled = totals(part, [value], shape)
        assert torch.equal(pooled, wanted)
        (keep,) = Keep(shape, rate)([pooled])
        removed = round(rate * wanted.numel())
        assert keep.flatten().tolist() == lowest_first(wanted.flatten().tolist(), removed)
        mask = spread(part, keep, shape)
        assert mask.shape == (rows, columns)
        assert torch.equal(totals(part, [mask.int()], shape), keep * (rows * columns // keep.numel()))
        assert (~mask).sum() == shape.removed(part, rate) * (part.parameters // shape.units(part))


def test_columns_that_carry_nothing_go_first() -> None:
    scores, dead = torch.arange(12.0).reshape(2, 6), torch.tensor([False, False, True, False, False, True])
    gone = {
        name: ~Keep(parse_shape(name), rate, dead)([scores])[0]
        for name, rate in [("unstructured", 0.5), ("2:3", 1 / 3)]
    }
    assert gone["unstructured"].tolist() == [
        [True, True, True, False, False, True],
        [False, False, True, False, False, True],
    ]
    assert gone["2:3"].tolist() == [[False, False, True, False, False, True]] * 2
    (columns,) = Keep(parse_shape("column"), 0.5, dead)([scores.sum(0)])
    assert columns.tolist() == [False, True, False, True, True, False]
    (rows,) = Keep(parse_shape("row"), 0.5, dead)([scores.sum(1)])
    assert rows.tolist() == [False, True]
