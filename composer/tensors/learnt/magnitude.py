"""``|W|`` as it is now: gradual magnitude pruning (Zhu and Gupta 2017), the classic control."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .scores import LearntScores


class MagnitudeScores(LearntScores):
    """Nothing is learnt but the weights: what is smallest now goes, by the same schedule as for movement."""

    def begin(self, weight: Tensor) -> Tensor:
        return weight.abs()

    def step(self, weights: Mapping[str, Tensor]) -> None:
        for name, score in self.of.items():
            torch.abs(weights[name].detach(), out=score)
