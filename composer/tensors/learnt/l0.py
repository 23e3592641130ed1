"""L0 regularisation by hard concrete gates (Louizos et al. 2018), the classic control with random masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from ...scheme.layout import Target
from ...scheme.shapes import Shape
from ..masks import expand
from ..ranking import spread, totals
from .adam import PenalisedScores
from .scores import ranks

TEMPERATURE = 2 / 3
"""β of the paper."""
LOW, HIGH = -0.1, 1.1
"""γ and ζ of the paper: gates are stretched to this interval and cut at 0 and 1."""
OPEN = 2.197
"""Where ``log α`` begins: gates are open nine times of ten."""
LEAST = 1e-6
"""How near to 0 and 1 what is drawn may lie."""


class HardConcreteScores(PenalisedScores):
    """A gate for each unit: ``W' = W z``.

        s = σ((log u − log(1−u) + log α) / β),    z = clamp(s (ζ−γ) + γ, 0, 1)

    ``u`` is drawn uniformly in each step; what is measured and kept has ``z = clamp(σ(log α) (ζ−γ) + γ, 0, 1)``, which
    stays in the weights. The penalty is λ times the probability of an open gate, ``σ(log α − β log(−γ/ζ))``. Scores are
    ``log α``; they begin at 2.197, in the order of the magnitudes by .01 where the paper draws noise of that size.
    """

    way_down = OPEN - math.log(-LOW / HIGH)

    def __init__(
        self, parameters: Mapping[str, Tensor], parts: Sequence[tuple[Target, Shape]], steps: int = 10**6
    ) -> None:
        super().__init__(parameters, parts, steps)
        self._slopes: dict[int, Tensor] = {}

    def begin(self, weight: Tensor) -> Tensor:
        return OPEN + 0.01 * ranks(weight.abs())

    def opened(self, i: int, scores: Tensor, draw: Generator | None) -> Tensor:
        if draw is None:
            return (scores.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)
        u = torch.rand(scores.shape, generator=draw).clamp(LEAST, 1 - LEAST).to(scores.device)
        s = ((u.log() - (1 - u).log() + scores) / TEMPERATURE).sigmoid()
        stretched = s * (HIGH - LOW) + LOW
        inside = (stretched > 0) & (stretched < 1)
        self._slopes[i] = torch.where(inside, (HIGH - LOW) * s * (1 - s) / TEMPERATURE, 0.0)
        return stretched.clamp(0, 1)

    def push(self, scores: Tensor) -> Tensor:
        open_ = (scores - TEMPERATURE * math.log(-LOW / HIGH)).sigmoid()
        return open_ * (1 - open_)

    def gradients(self) -> Mapping[str, Tensor]:
        found = {name: torch.zeros_like(one) for name, one in self.of.items()}
        for i, ((part, shape), penalty) in enumerate(zip(self.parts, self.penalties, strict=True)):
            scores = self.scores_of(i) / self.size(i)
            gate = totals(part, [p.of(self.gathered[p.weight]) for p in part.projections], shape)
            of_unit = gate * self._slopes.get(i, 1.0) + self.push(scores) * (penalty / len(self.parts) / scores.numel())
            spread_out = expand(part, spread(part, of_unit, shape))
            for p in part.projections:
                p.of(found[p.weight]).copy_(p.of(spread_out[p.weight]))
        return found
