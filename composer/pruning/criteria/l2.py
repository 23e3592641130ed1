"""Magnitude: the Euclidean norm of a unit (filters: He et al. 2018, "Soft filter pruning").

Of single weights it is their absolute value, so the masks are those of l1; units of several weights differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...tensors.ranking import totals
from .criterion import ANY_SHAPE, Stats

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...scheme.shapes import Shape


class L2:
    """Score of a unit: ``sqrt(Σ w²)`` over its weights (out, in); for a head over its rows of q, k and v."""

    name = "l2"
    needs: frozenset[str] = frozenset()
    shapes = ANY_SHAPE

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """(out, in) for single weights, (out,) for rows, (in,) for columns, (out / R, in / C) for blocks, (heads,) or
        (neurons,); see :class:`composer.pruning.criteria.criterion.Criterion`."""
        if target.kind == "linear" and (shape is None or shape.single):
            return weights[0].abs()  # the root of a square that underflows would tie small weights
        return totals(target, [w.double().square() for w in weights], shape).sqrt()
