"""Scores that are learnt with a model (movement pruning), and the masks that follow from them by rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..scheme.layout import Target
from ..scheme.shapes import Shape
from .masks import expand
from .parameters import set_values
from .ranking import Keep, spread, totals

WARM_UP, COOL_DOWN = 0.1, 0.3
"""Shares of a training before anything is masked, and at the full rate."""
REFRESHED = 64
"""How often in a training masks follow the scores: ranking millions of weights costs more than a step."""


def risen(way: float, warm_up: float = WARM_UP, cool_down: float = COOL_DOWN) -> float:
    """The part of the final rate that is masked after ``way`` (0 to 1) of a training: cubic (Zhu and Gupta 2017).

    >>> risen(0.0, 0.0, 0.5), risen(0.25, 0.0, 0.5), risen(0.5, 0.0, 0.5)
    (0.0, 0.875, 1.0)
    """
    between = (way - warm_up) / max(1e-9, 1 - warm_up - cool_down)
    return 1 - (1 - min(1.0, max(0.0, between))) ** 3


PACE = 0.01
"""How far movement moves a score in a step, at most about (the published rate); all of them begin between 0 and 1."""
MOMENTUM, SPREAD = 0.9, 0.999
"""Adam's averages of gradients and of their squares."""


class LearntScores:
    """A score for every weight of some parts of a model that learns; a new way to score derives from this.

    What to write: :meth:`begin`, and of :meth:`learn` and :meth:`step` what the way looks at. Nothing else changes with
    it: masks follow by rank (:meth:`masks`); which modules are masked and when is said by rules, as for
    :class:`composer.LearnMasks`; what is masked goes out of the model by ``composer.shrink``.

    A unit's score is the sum of its weights' (Lagunas et al. 2021), so one set of scores serves every shape and rate.
    """

    def __init__(self, parameters: Mapping[str, Tensor], parts: Sequence[tuple[Target, Shape]]) -> None:
        """``parameters`` by name, as they are stored; ``parts`` with the shapes of their units."""
        self.parts = list(parts)
        self.projections = [p for part, _ in self.parts for p in part.projections]
        self.of = {p.weight: torch.zeros_like(parameters[p.weight], requires_grad=False) for p in self.projections}
        for p in self.projections:
            p.of(self.of[p.weight]).copy_(self.begin(p.of(parameters[p.weight].detach())))

    def begin(self, weight: Tensor) -> Tensor:
        """Scores of one matrix, (out, in), before the first step: 0, where nothing else is said."""
        return torch.zeros_like(weight)

    def learn(self, name: str, gradient: Tensor, weight: Tensor) -> None:
        """See one batch: the gradient of what the model has computed with, and the weight as if nothing were masked.

        Called for each of several accumulated batches. Both are as stored; neither may be kept or changed.
        """

    def step(self, weights: Mapping[str, Tensor]) -> None:
        """Move the scores, once for each step of the optimiser, which comes next.

        Args:
            weights: parameters by name, nothing masked.
        """

    def state(self) -> dict[str, Any]:
        """All that a run which is gone on with must know, between steps."""
        return {"of": self.of}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up such a state."""
        set_values(self.of, state["of"])

    def masks(self, rates: Sequence[float]) -> dict[str, Tensor]:
        """Keep-masks by parameter name, with a rate for each part; none where the rate is 0."""
        kept: dict[str, Tensor] = {}
        for (part, shape), rate in zip(self.parts, rates, strict=True):
            if not rate:
                continue
            scores = totals(part, [p.of(self.of[p.weight]) for p in part.projections], shape)
            [units] = Keep(shape, rate)([scores])
            for name, mask in expand(part, spread(part, units, shape)).items():
                kept[name] = kept[name] & mask if name in kept else mask
        return kept


class MagnitudeScores(LearntScores):
    """``|W|`` as it is now: gradual magnitude pruning (Zhu and Gupta 2017), the classic control."""

    def begin(self, weight: Tensor) -> Tensor:
        return weight.abs()

    def step(self, weights: Mapping[str, Tensor]) -> None:
        for name, score in self.of.items():
            torch.abs(weights[name].detach(), out=score)


class MovementScores(LearntScores):
    """A rank by magnitude at first, then moved by Adam (Sanh et al. 2020).

    The gradient of a score is ``∂L/∂W' ∘ W`` (equation 3): what grows in magnitude gains. Scores begin as ranks, from 0
    to 1 within each matrix, since of a model that has been fine-tuned already the gradients are noise around 0: scores
    that begin at 0 take away large weights as readily as small ones. A training of ``n`` steps moves a score by about
    ``PACE · √n`` where its gradients are noise and by ``PACE · n`` where they agree.
    """

    def __init__(self, parameters: Mapping[str, Tensor], parts: Sequence[tuple[Target, Shape]]) -> None:
        super().__init__(parameters, parts)
        self.gathered, self._mean, self._square = (
            {name: torch.zeros_like(one) for name, one in self.of.items()} for _ in range(3)
        )
        self.steps = 0

    def begin(self, weight: Tensor) -> Tensor:
        return ranks(weight.abs())

    def learn(self, name: str, gradient: Tensor, weight: Tensor) -> None:
        self.gathered[name].addcmul_(gradient, weight)

    def step(self, weights: Mapping[str, Tensor]) -> None:
        self.steps += 1
        for name, gradient in self.gathered.items():
            mean, square = self._mean[name], self._square[name]
            mean.lerp_(gradient, 1 - MOMENTUM)
            square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
            size = (square / (1 - SPREAD**self.steps)).sqrt_().add_(1e-12)
            self.of[name].addcdiv_(mean, size, value=-PACE / (1 - MOMENTUM**self.steps))
            gradient.zero_()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "steps": self.steps, "mean": self._mean, "square": self._square}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        self.steps = int(state["steps"])
        set_values(self._mean, state["mean"])
        set_values(self._square, state["square"])


def ranks(values: Tensor) -> Tensor:
    """The place of each value among all, from 0 for the smallest to 1; ties by index.

    >>> ranks(torch.tensor([[3.0, 1.0], [2.0, 1.0]]))
    tensor([[1.0000, 0.0000],
            [0.6667, 0.3333]])
    """
    flat = values.reshape(-1)
    found = torch.empty_like(flat)
    found[flat.argsort(stable=True)] = torch.linspace(0, 1, flat.numel(), dtype=flat.dtype, device=flat.device)
    return found.view(values.shape)
