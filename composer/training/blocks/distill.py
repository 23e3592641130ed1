"""Gradient distillation of one block onto the base model's output (the classic block trainer).

Minimises the relative error of the block's output on the base model's inputs, by AdamW with a linearly
falling rate and clipped gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from ...tensors import masks as keep_masks
from .stepping import Stepping
from .trainer import BlockSettings, Run, relative_error

CLIP = 1.0


class Distill(Stepping):
    """One block's parameters and their own optimiser."""

    @classmethod
    def start(cls, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], settings: BlockSettings) -> Self:
        """All parameters of the block learn."""
        return cls(parameters, masks, learning_rate=settings.learning_rate, steps=settings.steps)

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        *,
        learning_rate: float,
        steps: int,
    ) -> None:
        self.parameters = {name: p.detach().clone().requires_grad_(True) for name, p in parameters.items()}
        self.masks = {name: mask.to(self.parameters[name].device) for name, mask in masks.items()}
        keep_masks.apply(self.parameters, self.masks)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=learning_rate, weight_decay=0.0)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: max(0.0, 1 - s / steps))

    def step(self, run: Run, wanted: Tensor) -> float:
        """One optimiser step on the batch behind ``run``; returns the error before it.

        Args:
            wanted: the base model's output at real tokens, (tokens, width).
        """
        loss = relative_error(run(self.parameters), wanted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # Before clipping: else gradients of weights that are gone would count in the norm, and shrink the others.
        keep_masks.mask_gradients(self.parameters, self.masks)
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)
        self.optimizer.step()
        self.schedule.step()
        # Without gradient and decay they have not moved, unless clipping by an infinite norm has made NaN of all.
        keep_masks.apply(self.parameters, self.masks)
        return float(loss.detach())

    @torch.no_grad()
    def error(self, run: Run, wanted: Tensor) -> float:
        """Relative error with the current parameters."""
        return float(relative_error(run(self.parameters), wanted))

    def finish(self) -> dict[str, Tensor]:
        """The tuned parameters, detached copies."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}
