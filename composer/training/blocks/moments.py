"""What a closed form must know of a projection's inputs and of the outputs wanted, and the solve itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...calibration.gram import Gram
from ...scheme.layout import Projection
from ...tensors.least_squares import damping_of, masked_least_squares, preconditioner

TOLERANCE = 1e-4
"""Residual of a row relative to its right side: a tenth of that moved no loss in the fourth digit."""


class Moments:
    """What is known of one projection: ``X̂ᵀX̂``, and ``DᵀX̂`` and ``|D|²`` of the gap ``D`` that its weights leave.

    ``D = h_base - h_now``, (tokens, out), is what the stream lacks while the projection has the ``reference`` weights
    (out, in): the outputs wanted are ``Y = X̂ W_refᵀ + D``. With a bias ``X̂`` has a last column of ones. Sums over
    hundreds of thousands of tokens: float64, where the device has it.
    """

    def __init__(self, last: Projection, reference: Tensor) -> None:
        self.last, self.reference = last, reference
        device = reference.device
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        width = last.in_features + last.bias
        self.gram = torch.zeros(width, width, dtype=self.dtype, device=device)
        self.cross = torch.zeros(last.out_features, width, dtype=self.dtype, device=device)
        self.square = 0.0
        self.scale = 0.0
        self._inverse: tuple[float, Tensor] | None = None

    @classmethod
    def of(cls, gram: Gram, last: Projection, base: Mapping[str, Tensor], live: Tensor) -> Moments:
        """The base model's own inputs with all columns but ``live`` (in,) set to zero, and its own outputs.

        Args:
            base: the base model's parameters, by name.
        """
        weight = matrix(base, last)
        made = cls(last, weight)
        made.gram = gram.matrix.to(made.gram)
        made.scale = float(((weight.to(made.dtype) @ made.gram) * weight).sum())
        if not bool(live.all()):
            dead = (~live).nonzero().flatten().to(weight.device)
            lost = weight[:, dead].to(made.dtype)
            made.cross = (lost @ made.gram[dead]).index_fill(1, dead, 0.0)
            made.square = float(((lost @ made.gram[dead][:, dead]) * lost).sum())
            made.gram = made.gram.index_fill(0, dead, 0.0).index_fill(1, dead, 0.0)
        return made

    def add(self, inputs: Tensor, gap: Tensor, wanted: Tensor) -> None:
        """Add a batch: what the projection reads, (tokens, in), and what the stream lacks, (tokens, out).

        ``wanted`` is the whole block's output, (tokens, width), which errors are relative to.
        """
        if self.last.bias:
            inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        # One batch in float32, the sum of batches in float64.
        self.gram += inputs.T @ inputs
        self.cross += gap.T @ inputs
        self.square += float(gap.square().sum(dtype=self.dtype))
        self.scale += float(wanted.square().sum(dtype=self.dtype))

    def error(self, weight: Tensor) -> float:
        """``|Y - X̂Wᵀ|²`` for ``weight`` (out, in), relative to the block's output."""
        step = (weight - self.reference).to(self.dtype)
        left = self.square - 2 * float((self.cross * step).sum()) + float(((step @ self.gram) * step).sum())
        return max(left, 0.0) / (self.scale or 1.0)

    def solve(self, start: Tensor, keep: Tensor, damping: float, *, tolerance: float | None = None) -> Tensor:
        """The best weights on a mask, pulled towards ``start``; both (out, in), with the bias as a last column.

        ``tolerance`` is the residual, as a share, at which the solver stops [:data:`TOLERANCE`].
        """
        strength = damping_of(self.gram, damping)
        wanted = self.reference.to(self.dtype) @ self.gram + self.cross + strength * start
        if self._inverse is None or self._inverse[0] != damping:
            damped = self.gram.clone()
            damped.diagonal().add_(strength)
            self._inverse = damping, preconditioner(damped)  # shared by all rates of a module
        solved, _ = masked_least_squares(
            start,
            self.gram,
            keep,
            damping=damping,
            target=wanted,
            inverse=self._inverse[1].to(start),
            tolerance=TOLERANCE if tolerance is None else tolerance,
        )
        return solved


def matrix(parameters: Mapping[str, Tensor], last: Projection) -> Tensor:
    """The projection's weight as (out, in), whatever way the module stores it, and the bias as a last column."""
    weight = last.of(parameters[last.weight].detach())
    if not last.bias_name:
        return weight
    return torch.cat([weight, last.bias_of(parameters[last.bias_name].detach())[:, None]], 1)


def kept(masks: Mapping[str, Tensor], last: Projection, device: torch.device) -> Tensor:
    """The projection's keep-mask in the same form; a bias is always kept."""
    mask = masks.get(last.weight)
    if mask is None:
        return torch.ones(last.out_features, last.in_features + last.bias, dtype=torch.bool, device=device)
    mask = last.of(mask).to(device)
    return torch.cat([mask, torch.ones_like(mask[:, :1])], 1) if last.bias else mask


def separated(weight: Tensor, last: Projection) -> dict[str, Tensor]:
    """Parameters by name, as the module stores them: the inverse of :func:`matrix`."""
    bias = {last.bias_name: weight[:, -1].clone()} if last.bias_name else {}
    body = weight[:, :-1] if last.bias else weight
    return {last.weight: (body.T if last.transposed else body).contiguous().clone(), **bias}
