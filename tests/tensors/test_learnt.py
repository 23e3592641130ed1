"""Ways to learn scores against autograd through the formulas of their papers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composer.scheme.layout import Projection, Target
from composer.scheme.shapes import parse_shape
from composer.tensors.learnt import WAYS
from composer.tensors.learnt.patch import Patch, drawn_in
from composer.tensors.learnt.scores import LearntScores, ranks

TARGET = Target("0", "linear", (Projection("0", 4, 6, False, "encoder"),))
STEPS, SEED, PENALTY = 40, 5, 3.0
X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))


def loss_of(masked: Tensor, weight: Tensor) -> Tensor:
    return (X @ (masked - weight).T).pow(2).mean()


def learnt(way: str, shape: str, weight: Tensor) -> tuple[LearntScores, Patch]:
    """So many steps of scores alone; weights stay."""
    parameter = nn.Parameter(weight.clone())
    scores = WAYS.get(way)({"0.weight": parameter}, [(TARGET, parse_shape(shape))], STEPS)
    patch = Patch({"0.weight": parameter}, scores)
    for step in range(STEPS):
        patch.follow([PENALTY], drawn_in(step, SEED))
        (gradient,) = torch.autograd.grad(loss_of(parameter, weight), parameter)
        patch.off()
        scores.learn("0.weight", gradient, parameter.detach())
        scores.step({"0.weight": parameter})
    assert torch.equal(parameter, weight)
    patch.follow([PENALTY])
    return scores, patch


def by_autograd(scores: Tensor, gates: Any, penalised: Any, pace: float, weight: Tensor) -> Tensor:
    own = nn.Parameter(scores)
    adam = torch.optim.Adam([own], lr=pace, eps=1e-12)
    for step in range(STEPS):
        adam.zero_grad()
        loss = loss_of(weight * gates(own, step), weight) + PENALTY * penalised(own).mean()
        loss.backward()
        adam.step()
    return own.detach()


def test_soft_movement_is_a_straight_through_threshold_with_a_penalty() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))

    def through(scores: Tensor, _: int) -> Tensor:
        return (scores.sigmoid() > 0.1).float() + scores - scores.detach()

    pace = 4 * math.log(9) / STEPS
    wanted = by_autograd(ranks(weight.abs()) - 0.5, through, torch.sigmoid, pace, weight)
    found, patch = learnt("sigmoid", "unstructured", weight)
    assert torch.allclose(found.of["0.weight"], wanted, atol=1e-4)
    gone = wanted.sigmoid() <= 0.1
    assert 0 < int(gone.sum()) < 24
    assert torch.equal(patch.masks["0.weight"], ~gone)
    assert found.thresholds[0] == pytest.approx(float(wanted[gone].max()), abs=1e-4)


def test_hard_concrete_gates_are_drawn_as_published_and_stay_in_the_weights() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    beta, gamma, zeta = 2 / 3, -0.1, 1.1

    def drawn(scores: Tensor, step: int) -> Tensor:
        u = torch.rand(2, 3, generator=torch.Generator().manual_seed(SEED * 1_000_003 + step))
        s = torch.sigmoid(((u / (1 - u)).log() + scores) / beta)
        return blocks((s * (zeta - gamma) + gamma).clamp(0, 1))

    def blocks(values: Tensor) -> Tensor:
        return values.repeat_interleave(2, 0).repeat_interleave(2, 1)

    def open_(scores: Tensor) -> Tensor:
        return torch.sigmoid(scores - beta * math.log(-gamma / zeta))

    begin = (2.197 + 0.01 * ranks(weight.abs())).reshape(2, 2, 3, 2).mean((1, 3))
    pace = 4 * (2.197 - math.log(0.1 / 1.1)) / STEPS
    wanted = by_autograd(begin, drawn, open_, pace, weight)
    found, patch = learnt("l0", "2x2", weight)
    assert torch.allclose(found.scores_of(0) / 4, wanted, atol=1e-3)
    gates = blocks((wanted.sigmoid() * (zeta - gamma) + gamma).clamp(0, 1))
    assert torch.allclose(patch.parameters["0.weight"], weight * gates, atol=1e-3)
    assert 0 < int((gates == 0).sum()) < 24
