"""Scores that are learnt with a model (movement pruning), and the masks that follow from them by rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..scheme.layout import Target
from ..scheme.shapes import Shape
from .masks import expand
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


class LearntScores:
    """A score for every weight of some parts of a model, 0 at first.

    A unit's score is the sum of its weights' (Lagunas et al. 2021), so one set of scores serves every shape and rate.
    """

    def __init__(self, parameters: Mapping[str, Tensor], parts: Sequence[tuple[Target, Shape]]) -> None:
        """``parameters`` by name, as they are stored; ``parts`` with the shapes of their units."""
        self.parts = list(parts)
        names = dict.fromkeys(p.weight for part, _ in self.parts for p in part.projections)
        self.of = {name: torch.zeros_like(parameters[name], requires_grad=False) for name in names}

    def learn(self, name: str, gradient: Tensor, weight: Tensor) -> None:
        """``S ← S - ∂L/∂W' ∘ W``: what grows in magnitude gains (Sanh et al. 2020, equation 3)."""
        self.of[name] -= gradient * weight

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
