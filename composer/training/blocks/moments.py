"""What a closed form must know of a projection's inputs and of the outputs wanted, and the solve itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...calibration.gram import Gram
from ...scheme.layout import Projection
from ...tensors.least_squares import damping_of, masked_step, preconditioner
from ...tensors.precision import exact

TOLERANCE = 2e-3
"""Residual of a row, relative to its right side, at which it is solved."""
STRIP = 256
"""Columns of one of the products that make up a symmetric one."""


class RegressionSums:
    """What is known of one projection: ``X̂ᵀX̂``, and ``DᵀX̂`` and ``|D|²`` of the gap ``D`` that its weights leave.

    ``D = h_base - h_now``, (tokens, out), is what the stream lacks while the projection has the ``reference`` weights
    (out, in): the outputs wanted are ``Y = X̂ W_refᵀ + D``. With a bias ``X̂`` has a last column of ones. Sums over
    hundreds of thousands of tokens: float64, where the device has it.

    Where ``columns`` are named, ``X̂`` has these alone: all sums are as narrow, and other weights stay as they start.
    """

    columns: Tensor | None = None

    def __init__(self, last: Projection, reference: Tensor) -> None:
        self.last, self.reference = last, reference
        device = reference.device
        self.dtype = exact(device)
        width = last.in_features + last.bias
        self.gram = torch.zeros(width, width, dtype=self.dtype, device=device)
        self.cross = torch.zeros(last.out_features, width, dtype=self.dtype, device=device)
        self.squares = torch.zeros(last.out_features, dtype=self.dtype, device=device)  # of each output
        self.scale = 0.0
        self._shared: System | None = None

    def add(self, inputs: Tensor, gap: Tensor, wanted: Tensor, weights: Tensor | None = None) -> None:
        """Add a batch: what the projection reads, (tokens, in), and what the stream lacks, (tokens, out).

        Args:
            wanted: the whole block's output, (tokens, width), which errors are relative to.
            weights: of the tokens, (tokens,), in all sums; None weighs them alike.
        """
        ones = None
        if weights is not None:  # weighted squares are squares of rows that are so much longer
            ones = weights.to(inputs).sqrt()[:, None]
            inputs, gap, wanted = inputs * ones, gap * ones, wanted * ones
        width = self.last.in_features
        # One batch in float32, the sum of batches in float64; of the symmetric product little more than a half.
        for first in range(0, width, STRIP):
            own = slice(first, min(first + STRIP, width))
            strip = inputs[:, own].T @ inputs[:, first:]
            self.gram[own, first:width] += strip
            self.gram[own.stop : width, own] += strip[:, own.stop - first :].T
        self.cross[:, :width] += gap.T @ inputs
        if self.last.bias:  # one more column, of ones
            total = inputs.sum(0) if ones is None else (inputs * ones).sum(0)
            self.gram[width, :width] += total
            self.gram[:width, width] += total
            self.gram[width, width] += len(inputs) if ones is None else ones.square().sum(dtype=self.dtype)
            self.cross[:, width] += gap.sum(0) if ones is None else (gap * ones).sum(0)
        self.squares += gap.square().sum(0, dtype=self.dtype)
        self.scale += float(wanted.square().sum(dtype=self.dtype))

    @property
    def square(self) -> float:
        """``|D|²``."""
        return float(self.squares.sum())

    def error(self, weight: Tensor) -> float:
        """``|Y - X̂Wᵀ|²`` for ``weight`` (out, in), relative to the block's output."""
        step = (self._own(weight) - self._own(self.reference)).to(self.dtype)
        left = self.square - 2 * float((self.cross * step).sum()) + float(((step @ self.gram) * step).sum())
        return self._relative(left)

    def solve(self, start: Tensor, keep: Tensor, damping: float, *, tolerance: float | None = None) -> Tensor:
        """The best weights on a mask: :meth:`refit`'s."""
        return self.refit(start, keep, damping, tolerance=tolerance).weight

    def refit(self, start: Tensor, keep: Tensor, damping: float, *, tolerance: float | None = None) -> Refitted:
        """The best weights on a mask, pulled towards ``start``; both (out, in), with the bias as a last column.

        ``start`` is 0 outside the mask. ``tolerance`` is the residual of a row, as a share of its right side, at which
        the solver stops [:data:`TOLERANCE`].
        """
        whole, start, keep = start, self._own(start), self._own(keep)
        shared = self._system(damping, start)
        moved = start - self._own(self.reference)
        # (Y - X̂Wᵀ)ᵀX̂: the damping term has no slope at ``start``.
        gap = self.cross.to(start) - moved @ shared.A + shared.strength * moved
        errors = self.squares - ((self.cross + gap) * moved).sum(1)
        right = (shared.wanted + shared.strength * start).masked_fill(~keep, 0.0)
        solved = masked_step(
            shared.A,
            gap.masked_fill(~keep, 0.0),
            keep,
            goal=(TOLERANCE if tolerance is None else tolerance) * right.norm(dim=1).to(start),
            inverse=lambda: shared.inverse,
        )
        after = errors - solved.gain - shared.strength * solved.step.to(self.dtype).square().sum(1)
        weight = whole + solved.step if self.columns is None else whole.index_add(1, self.columns, solved.step)
        return Refitted(weight, self._relative(float(errors.sum())), self._relative(float(after.sum())))

    def _own(self, matrix: Tensor) -> Tensor:
        """The columns of a matrix (out, in) that there are sums of."""
        return matrix if self.columns is None else matrix[:, self.columns]

    def _system(self, damping: float, like: Tensor) -> System:
        if self._shared is None or self._shared.damping != damping:
            strength = damping_of(self.gram, damping)
            A = self.gram.clone()
            A.diagonal().add_(strength)
            wanted = self._own(self.reference).to(self.dtype) @ self.gram + self.cross
            self._shared = System(damping, strength, A.to(like), wanted)
        return self._shared

    def _relative(self, error: float) -> float:
        return max(error, 0.0) / (self.scale or 1.0)


class BaseMoments:
    """What is known of a projection in the base model: ``G = XᵀX`` (in, in) of its inputs, and its outputs ``X Wᵀ``."""

    def __init__(self, gram: Gram, last: Projection, base: Mapping[str, Tensor]) -> None:
        """Products that all cuts share are made now.

        Args:
            base: the base model's parameters, by name.
        """
        self.last, self.weight = last, matrix(base, last)
        self.gram = gram.matrix.to(self.weight.device, exact(self.weight.device))
        self.outputs = self.weight.to(self.gram) @ self.gram  # (X Wᵀ)ᵀX
        self.scale = float((self.outputs * self.weight).sum())

    def cut(self, live: Tensor) -> RegressionSums:
        """The same outputs wanted of the inputs in the columns ``live`` alone, (in,) or without the column of ones."""
        if self.last.bias and len(live) == self.last.in_features:
            live = torch.cat([live, torch.ones_like(live[:1])])
        made = RegressionSums(self.last, self.weight)
        made.scale = self.scale
        if bool(live.all()):
            made.gram = self.gram
            return made
        here, gone = (some.nonzero().flatten().to(self.weight.device) for some in (live, ~live))
        made.columns, made.gram = here, self.gram[here][:, here]
        kept, lost = self.weight[:, here].to(self.gram), self.weight[:, gone].to(self.gram)
        # What is lost, X_gone W_goneᵀ, seen by what is there; either product is the difference of the other.
        few = len(gone) < len(here)
        made.cross = lost @ self.gram[gone][:, here] if few else self.outputs[:, here] - kept @ made.gram
        made.squares = (self.outputs[:, gone] * lost).sum(1) - (made.cross * kept).sum(1)
        return made


@dataclass(eq=False)
class System:
    """What all rates of a module share: λ, ``A`` (in, in) and ``YᵀX̂`` (out, in); its inverse when one asks for it."""

    damping: float
    strength: float
    A: Tensor
    wanted: Tensor

    @cached_property
    def inverse(self) -> Tensor:
        """Of ``A``, from a float64 factor: float32's would be one of another matrix."""
        return preconditioner(self.A.to(exact(self.A.device))).to(self.A)


@dataclass(frozen=True, eq=False)
class Refitted:
    """A refitted matrix (out, in), and its error before and after, relative to the block's output."""

    weight: Tensor
    before: float
    after: float


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
