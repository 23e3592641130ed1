"""From scores to an exact keep-mask: by rank, never by threshold.

A threshold removes 33 where 32 were asked and everything where all scores tie; a rank removes exactly
``round(rate * units)``, and ties go by index. The shapes are those of :mod:`composer.scheme.shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..scheme.layout import Target
from ..scheme.shapes import SINGLE, Shape, default_shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Keep:
    """The last step of every criterion: scores in, keep-masks out.

    Attributes:
        shape: of what is removed.
        rate: how much of it.
        dead: input columns that carry nothing, (in,) bool; single weights and columns go there first.
    """

    shape: Shape
    rate: float
    dead: Tensor | None = None

    def __call__(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Kept units of each part of a target, bool in the shape of its scores."""
        scores = [self._spent(one) for one in scores]
        if self.shape.kind == "global":
            return _together(scores, self.rate)
        if self.shape.kind == "per-row":
            return [_by_rows(one, self.rate) for one in scores]
        if self.shape.kind == "N:M":
            return [_by_groups(one, self.shape.a, self.shape.b) for one in scores]
        return [keep_by_rank(one, self.rate) for one in scores]

    def _spent(self, scores: Tensor) -> Tensor:
        """The scores, with those of dead columns below all others; rows, heads and neurons have no column to go by."""
        if self.dead is None or self.shape.kind not in {*SINGLE, "column"}:
            return scores
        return scores.masked_fill(self.dead.to(scores.device), -math.inf)


def totals(part: Target, values: Sequence[Tensor], shape: Shape | None = None) -> Tensor:
    """Sum of a value of each weight over the units: what a criterion of single weights makes of any shape.

    Args:
        values: one (out, in) matrix per projection of ``part``.
        shape: None is the default of ``part``.

    Returns:
        (out, in) for single weights, (out,) for rows, (in,) for columns, (out / R, in / C) for blocks, and
        (heads,) or (neurons,).
    """
    if part.kind == "attention":
        sums = [value.reshape(part.heads, -1).sum(1, dtype=value.dtype) for value in values]
    elif part.kind == "feed_forward":
        sums = [*(value.sum(1) for value in values[:-1]), values[-1].sum(0)]
        sums = [one if len(one) == part.heads else one.reshape(part.heads, -1).sum(1) for one in sums]
    else:
        return _pooled(values[0], shape or default_shape(part))
    total = sums[0]
    for more in sums[1:]:
        total = total + more
    return total


def spread(part: Target, keep: Tensor, shape: Shape) -> Tensor:
    """Kept units as :func:`.masks.expand` takes them: of a linear part a mask of its weights, (out, in)."""
    if part.kind != "linear" or shape.kind in SINGLE:
        return keep
    p = part.projections[0]
    if shape.kind == "RxC":
        keep = keep.repeat_interleave(shape.a, 0).repeat_interleave(shape.b, 1)
    return (keep[:, None] if shape.kind == "row" else keep).expand(p.out_features, p.in_features)


def keep_by_rank(scores: Tensor, rate: float) -> Tensor:
    """Keep-mask (bool, shape of ``scores``) that removes the ``round(rate * n)`` lowest scores.

    Among equal scores the one with the lower (row-major) index goes first. NaN scores are an error.

    >>> import torch
    >>> keep_by_rank(torch.tensor([3.0, 1.0, 1.0, 2.0]), 0.5)
    tensor([ True, False, False,  True])
    """
    import torch

    flat = scores.reshape(-1)
    if torch.isnan(flat).any():
        raise ValueError("scores hold NaN; they cannot be ranked")
    removed = round(rate * flat.numel())
    keep = torch.ones(flat.numel(), dtype=torch.bool, device=flat.device)
    keep[torch.argsort(flat, stable=True)[:removed]] = False
    return keep.reshape(scores.shape)


def shares(removed: int, groups: int) -> list[int]:
    """``removed`` spread over groups as evenly as it goes: none differs from another by more than 1.

    >>> shares(7, 3)
    [2, 2, 3]
    """
    return [removed * (i + 1) // groups - removed * i // groups for i in range(groups)]


def _pooled(value: Tensor, shape: Shape) -> Tensor:
    if shape.kind == "row":
        return value.sum(1)
    if shape.kind == "column":
        return value.sum(0)
    if shape.kind == "RxC":
        rows, columns = value.shape
        return value.reshape(rows // shape.a, shape.a, columns // shape.b, shape.b).sum((1, 3))
    return value


def _together(scores: Sequence[Tensor], rate: float) -> list[Tensor]:
    """One ranking over all matrices."""
    import torch

    keep = keep_by_rank(torch.cat([one.reshape(-1) for one in scores]), rate)
    parts = keep.split([one.numel() for one in scores])
    return [part.reshape(one.shape) for part, one in zip(parts, scores, strict=True)]


def _by_rows(scores: Tensor, rate: float) -> Tensor:
    """Each row by itself; the count of the whole matrix is exact, so rows may differ by one."""
    import torch

    going = torch.tensor(shares(round(rate * scores.numel()), len(scores)), device=scores.device)
    return _ranks(scores) >= going[:, None]


def _by_groups(scores: Tensor, kept: int, size: int) -> Tensor:
    """``kept`` of every ``size`` neighbours along a row."""
    groups = scores.reshape(len(scores), -1, size)
    return (_ranks(groups) >= size - kept).reshape(scores.shape)


def _ranks(scores: Tensor) -> Tensor:
    """Place of each score along the last dimension, the lowest first, ties by index."""
    import torch

    if torch.isnan(scores).any():
        raise ValueError("scores hold NaN; they cannot be ranked")
    return torch.argsort(torch.argsort(scores, dim=-1, stable=True), dim=-1)
