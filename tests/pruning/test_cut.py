"""One target cut: the same whichever way its modules store their weights, scored once for all rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from composer.calibration.gram import Gram
from composer.models.family import linear
from composer.pruning.criteria import CRITERIA
from composer.pruning.criteria.l1 import L1
from composer.pruning.cut import Cut
from composer.scheme.layout import Block, Layout, Target
from composer.scheme.shapes import Shape, parse_shape


def layout(*, transposed: bool) -> Layout:
    """A feed-forward of 12 neurons between 8 features, with biases."""
    targets = []
    for name, shape in [("up", (12, 8)), ("down", (8, 12))]:
        target = linear(name, *shape, bias=True, stream="encoder")
        targets.append(replace(target, projections=(replace(target.projections[0], transposed=transposed),)))
    block = Block("sublayer", "ffn", ("up", "down"), ("ffn",), ("ffn",), None, False, "encoder")
    return Layout("test", tuple(targets), (block,))


def parameters() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"up.weight": (12, 8), "up.bias": (12,), "down.weight": (8, 12), "down.bias": (8,)}
    return {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}


def turned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.T.contiguous() if value.dim() == 2 else value for name, value in tensors.items()}


def statistics(part: Target) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    grams = []
    for p in part.projections:
        X = torch.randn(40, p.in_features, generator=draw)
        grams.append(Gram((X.T @ X).double(), 40))
    return {"gram": grams, "seed": 0}


@pytest.mark.parametrize(
    ("criterion", "granularity", "rate"),
    [
        ("l1", "2:4", 0.5),
        ("l2", "4x2", 0.5),
        ("random", "row", 0.25),
        ("wanda", "unstructured", 0.3),
        ("sparsegpt", "2:4", 0.5),
        ("sparsegpt", "unstructured", 0.4),
        ("obs", "neuron", 0.5),
    ],
)
def test_modules_that_store_in_by_out_are_cut_alike(criterion: str, granularity: str, rate: float) -> None:
    chosen, shape, given = CRITERIA.get(criterion)(), parse_shape(granularity), parameters()
    weights, masks = Cut(layout(transposed=False), "up", shape, chosen, given, statistics).at(rate)
    other, others = Cut(layout(transposed=True), "up", shape, chosen, turned(given), statistics).at(rate)
    assert set(masks) == set(others)
    for name, mask in turned(masks).items():
        assert torch.equal(mask, others[name])
    for name, weight in turned(weights).items():
        torch.testing.assert_close(weight, other[name])
    gone = sum(int((~mask).sum()) for name, mask in masks.items() if name.endswith("weight"))
    assert gone == shape.removed_weights(layout(transposed=False), "up", rate)
    assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())
    assert all(torch.equal(value, parameters()[name]) for name, value in given.items())


def test_neurons_take_their_biases_and_leave_that_of_the_second_projection() -> None:
    weights, masks = Cut(layout(transposed=False), "up", Shape("neuron"), L1(), parameters(), statistics).at(0.5)
    assert set(masks) == {"up.weight", "up.bias", "down.weight"}
    gone = ~masks["up.bias"]
    assert gone.sum() == 6
    assert torch.equal(~masks["up.weight"], gone[:, None].expand(12, 8))
    assert torch.equal(~masks["down.weight"], gone.expand(8, 12))
    assert torch.equal(weights["down.bias"], parameters()["down.bias"])


def test_one_score_serves_all_rates() -> None:
    class Counting(L1):
        scored = 0

        def score(self, *args: Any) -> Tensor:
            self.scored += 1
            return super().score(*args)

    criterion = Counting()
    cut = Cut(layout(transposed=False), "up", Shape("unstructured"), criterion, parameters(), statistics)
    assert [int((~cut.at(rate)[1]["up.weight"]).sum()) for rate in (0.25, 0.5, 0.75)] == [24, 48, 72]
    assert criterion.scored == 1
