"""Magnitude: the sum of absolute values (Han et al. 2015; heads as in the structured l1 of Li et al. 2017)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...tensors.ranking import totals
from .criterion import ANY_SHAPE, Stats

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...scheme.shapes import Shape


class L1:
    """Score of a unit: ``Σ|w|`` over its weights (out, in); for a head over its rows of q, k and v."""

    name = "l1"
    needs: frozenset[str] = frozenset()
    shapes = ANY_SHAPE

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """(out, in) for single weights, (out,) for rows, (in,) for columns, (out / R, in / C) for blocks, (heads,) or
        (neurons,); see :class:`composer.pruning.criteria.criterion.Criterion`."""
        return totals(target, [w.abs() for w in weights], shape)
