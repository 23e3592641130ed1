"""A block's last projection in closed form: what the removed weights did is taken over by those that stay.

With the block's other weights fixed, its output is linear in its last projection ``W``. Let ``X`` be what
that projection reads in the pruned block (one column of ones for a bias), ``f`` the pruned block's output and
``g`` the base model's, both on the base model's inputs. The repaired weights minimise

    ``|X W'ᵀ - (X Wᵀ + g - f)|² + λ |W' - W|²``   over ``W'`` that are zero where ``W`` is masked.

Only ``XᵀX`` and ``YᵀX`` are needed, so every training example is looked at once. For a linear target by
itself this is masked least squares on its input's Gram matrix; for an attention sublayer the columns of
removed heads are zero in ``X``; for a feed-forward sublayer ``X`` is what the pruned first projection gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from ..layout import Projection
from ..solve import masked_least_squares
from .trainer import BlockSettings, Lesson, Run, relative_error

TOLERANCE = 1e-4
"""Residual of a row relative to its right side: a tenth of that moved no loss in the fourth digit."""


class LeastSquares:
    """Gathers second moments batch by batch, then solves once; see :class:`.trainer.BlockTrainer`."""

    fields = ("calibration_size", "batch_size", "damping")

    @classmethod
    def plan(cls, settings: BlockSettings) -> tuple[int, int]:
        """As many batches as hold the calibration sample, validated at the end."""
        batches = -(-settings.calibration_size // settings.batch_size)
        return batches, batches

    @classmethod
    def start(
        cls, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], last: Projection, settings: BlockSettings
    ) -> Self:
        """Only ``last`` is solved for; the other parameters stay as they are."""
        return cls(parameters, masks, last, damping=settings.damping)

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        last: Projection,
        *,
        damping: float,
    ) -> None:
        self.parameters = {name: p.detach().clone() for name, p in parameters.items()}
        self.last, self.damping = last, damping
        weight = self.parameters[last.weight]
        mask = masks.get(last.weight)
        keep = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.to(weight.device)
        # (out, in) whatever way the module stores it; the bias is one more column, always kept.
        self.weight, self.keep = (weight.T, keep.T) if last.transposed else (weight, keep)
        if last.bias:
            bias = self.parameters[f"{last.path}.bias"][:, None]
            self.weight = torch.cat([self.weight, bias], 1)
            self.keep = torch.cat([self.keep, torch.ones_like(bias, dtype=torch.bool)], 1)
        width = self.weight.shape[1]
        # Sums over hundreds of thousands of tokens: float64, where the device has it.
        self.dtype = torch.float32 if weight.device.type == "mps" else torch.float64
        self.gram = torch.zeros(width, width, dtype=self.dtype, device=weight.device)
        self.cross = torch.zeros(*self.weight.shape, dtype=self.dtype, device=weight.device)
        self.pending = False

    @torch.no_grad()
    def step(self, run: Lesson, wanted: Tensor) -> float:
        """Add one batch to the moments; returns the error of the unrepaired block on it."""
        inputs, output = run.probe(self.parameters, self.last.path)
        if self.last.bias:
            inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        outputs = inputs @ self.weight.T + wanted - output
        # One batch in float32, the sum of batches in float64.
        self.gram += (inputs.T @ inputs).to(self.dtype)
        self.cross += (outputs.T @ inputs).to(self.dtype)
        self.pending = True
        return relative_error(output, wanted).item()

    def error(self, run: Run, wanted: Tensor) -> float:
        """Relative error with the solved weights."""
        self._settle()
        with torch.no_grad():
            return relative_error(run(self.parameters), wanted).item()

    def finish(self) -> dict[str, Tensor]:
        """Solve if there is anything new, and return all parameters of the block."""
        self._settle()
        return {name: p.clone() for name, p in self.parameters.items()}

    def _settle(self) -> None:
        """Solve, if there are moments that the weights do not know of yet."""
        if not self.pending:
            return
        start = self.weight.to(self.dtype)
        scale = self.damping * self.gram.diagonal().mean()
        solved, _ = masked_least_squares(
            start,
            self.gram,
            self.keep,
            damping=self.damping,
            target=self.cross + scale * start,
            tolerance=TOLERANCE,
        )
        solved = solved.to(self.weight.dtype)
        weight = solved[:, :-1] if self.last.bias else solved
        self.parameters[self.last.weight].copy_(weight.T if self.last.transposed else weight)
        if self.last.bias:
            self.parameters[f"{self.last.path}.bias"].copy_(solved[:, -1])
        self.pending = False
