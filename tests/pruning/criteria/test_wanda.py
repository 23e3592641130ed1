"""Wanda against its published algorithm, written down independently."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from composer.calibration.gram import Gram
from composer.models.family import linear
from composer.pruning.criteria.wanda import Wanda
from composer.pruning.cut import Cut
from composer.scheme.layout import Layout
from composer.scheme.shapes import parse_shape
from tests.reference import wanda


def layer(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """A weight, and inputs of features that are scaled differently: sequences of (tokens, in)."""
    draw = torch.Generator().manual_seed(seed)
    scales = torch.rand(columns, generator=draw) * 3
    return torch.randn(rows, columns, generator=draw), [
        torch.randn(length, columns, generator=draw) * scales for length in (5, 9, 3)
    ]


def ours(weight: Tensor, samples: list[Tensor], granularity: str, rate: float) -> Tensor:
    """What of ``l`` is kept."""
    target = linear("l", *weight.shape, bias=False, stream="encoder")
    X = torch.cat(samples)
    stats = {"gram": [Gram((X.T @ X).double(), len(X))]}
    cut = Cut(
        Layout("test", (target,), ()), "l", parse_shape(granularity), Wanda(), {"l.weight": weight}, lambda _: stats
    )
    weights, masks = cut.at(rate)
    assert torch.equal(weights["l.weight"], weight * masks["l.weight"])
    return masks["l.weight"]


def published(weight: Tensor, samples: list[Tensor]) -> Tensor:
    norms = wanda.Norms(weight.shape[1])
    for sample in samples:
        norms.add(sample)
    return wanda.metric(weight, norms)


@pytest.mark.parametrize("granularity", ["unstructured", "per-row"])
@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75])
def test_single_weights_are_compared_within_rows_as_published(granularity: str, rate: float) -> None:
    weight, samples = layer(13, 24)
    gone = wanda.unstructured(published(weight, samples), rate)
    assert torch.equal(ours(weight, samples, granularity, rate), ~gone)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4), (1, 3), (5, 6)])
def test_n_of_m_is_as_published(n: int, m: int) -> None:
    weight, samples = layer(13, 24, seed=1)
    gone = wanda.semi_structured(published(weight, samples), m - n, m)
    assert torch.equal(ours(weight, samples, f"{n}:{m}", 1 - n / m), ~gone)


@pytest.mark.parametrize("rate", [0.3, 0.41, 0.66])
def test_the_count_is_exact_where_rows_cannot_be_cut_evenly(rate: float) -> None:
    weight, samples = layer(7, 10, seed=2)
    keep = ours(weight, samples, "unstructured", rate)
    per_row = (~keep).sum(1)
    assert per_row.sum() == round(rate * 70)
    assert per_row.max() - per_row.min() <= 1
    scores = published(weight, samples)
    for row in range(7):
        assert scores[row][~keep[row]].max() < scores[row][keep[row]].min()


def test_what_it_needs_is_named() -> None:
    target = linear("l", 2, 2, bias=False, stream="encoder")
    with pytest.raises(ValueError, match=r"l: criterion 'wanda' needs the statistic 'gram'; got \[\]"):
        Wanda().score(target, [torch.ones(2, 2)], {})
