"""Soft movement pruning (Sanh et al. 2020, section 4): a threshold on scores, and a penalty."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Generator, Tensor

from .adam import PenalisedScores
from .scores import ranks

THRESHOLD = 0.1
"""``σ(S)`` below which a unit is masked, as published."""
LOGIT = math.log(THRESHOLD / (1 - THRESHOLD))


class SigmoidScores(PenalisedScores):
    """``M = 1[σ(S) > τ]``, straight through, with ``λ σ(S)`` in the loss.

    How much is masked is not said but found: each part loses as much as the task lets it. Published scores begin at 0;
    here they begin around it, in the order of the magnitudes, from -0.5 to 0.5.
    """

    way_down = -LOGIT

    def begin(self, weight: Tensor) -> Tensor:
        return ranks(weight.abs()) - 0.5

    def opened(self, i: int, scores: Tensor, draw: Generator | None) -> Tensor:
        return scores > LOGIT

    def push(self, scores: Tensor) -> Tensor:
        open_ = scores.sigmoid()
        return open_ * (1 - open_)

    def gradients(self) -> Mapping[str, Tensor]:
        for (part, _), penalty in zip(self.parts, self.penalties, strict=True):
            share = penalty / len(self.parts) / part.parameters
            for p in part.projections:
                p.of(self.gathered[p.weight]).add_(self.push(p.of(self.of[p.weight])), alpha=share)
        return self.gathered
