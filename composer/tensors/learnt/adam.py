"""Scores that Adam moves by the gradient of what each weight is multiplied with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...scheme.layout import Target
from ...scheme.shapes import Shape
from ..parameters import set_values
from .scores import LearntScores

PACE = 0.01
"""How far a score is moved in a step, at most about: the published rate of movement."""
MOMENTUM, SPREAD = 0.9, 0.999
"""Adam's averages of gradients and of their squares."""


class AdamScores(LearntScores):
    """``S ← Adam(S, ∂L/∂M)``, where the model computes with ``W' = W ∘ M``, so that ``∂L/∂M = ∂L/∂W' ∘ W``.

    What a way makes of that gradient is :meth:`gradients`.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], parts: Sequence[tuple[Target, Shape]], steps: int = 10**6
    ) -> None:
        super().__init__(parameters, parts, steps)
        self.gathered, self._mean, self._square = (
            {name: torch.zeros_like(one) for name, one in self.of.items()} for _ in range(3)
        )
        self.steps = 0

    @property
    def pace(self) -> float:
        """How far a score is moved in a step, at most about."""
        return PACE

    def learn(self, name: str, gradient: Tensor, weight: Tensor) -> None:
        self.gathered[name].addcmul_(gradient, weight)

    def gradients(self) -> Mapping[str, Tensor]:
        """Of the scores, by name; here straight through the mask: ``∂L/∂S = ∂L/∂M``."""
        return self.gathered

    def step(self, weights: Mapping[str, Tensor]) -> None:
        self.steps += 1
        for name, gradient in self.gradients().items():
            mean, square = self._mean[name], self._square[name]
            mean.lerp_(gradient, 1 - MOMENTUM)
            square.mul_(SPREAD).addcmul_(gradient, gradient, value=1 - SPREAD)
            size = (square / (1 - SPREAD**self.steps)).sqrt_().add_(1e-12)
            self.of[name].addcdiv_(mean, size, value=-self.pace / (1 - MOMENTUM**self.steps))
            self.gathered[name].zero_()

    def state(self) -> dict[str, Any]:
        return {**super().state(), "steps": self.steps, "mean": self._mean, "square": self._square}

    def load(self, state: Mapping[str, Any]) -> None:
        super().load(state)
        self.steps = int(state["steps"])
        set_values(self._mean, state["mean"])
        set_values(self._square, state["square"])


class PenalisedScores(AdamScores):
    """Scores that a penalty pushes down, and the task up: what falls below a threshold is masked.

    The loss is ``L + λ · mean over parts of (mean over units of P(S))``, where ``P`` grows with the score
    (:meth:`push` is its slope); λ rises by the cubic schedule. The published pace is made for ten thousands of steps:
    in a training that is too short to cross :attr:`way_down` with it in a quarter of the steps, scores move faster.
    """

    amount = "penalty"
    every_step = True
    way_down = 1.0
    """From where scores begin to the threshold."""

    def __init__(
        self, parameters: Mapping[str, Tensor], parts: Sequence[tuple[Target, Shape]], steps: int = 10**6
    ) -> None:
        super().__init__(parameters, parts, steps)
        self.penalties = [0.0] * len(self.parts)

    @property
    def pace(self) -> float:
        return max(PACE, 4 * self.way_down / self.steps_in_all)

    def kept(self, i: int, scores: Tensor, amount: float, draw: torch.Generator | None) -> Tensor:
        self.penalties[i] = amount
        return self.opened(i, scores / self.size(i), draw)

    def opened(self, i: int, scores: Tensor, draw: torch.Generator | None) -> Tensor:
        """What the units of part ``i`` are multiplied with, from the means of their weights' scores."""
        raise NotImplementedError

    def push(self, scores: Tensor) -> Tensor:
        """Slope of what is penalised of a score."""
        raise NotImplementedError
