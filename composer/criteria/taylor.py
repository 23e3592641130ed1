"""First-order Taylor expansion of the loss: what setting a unit to 0 would change (Molchanov et al. 2017, 2019).

Heads and neurons are scored by gates ξ = 1 on their output (Michel et al. 2019, "Are sixteen heads really better
than one?"): with ``y = Σ_h ξ_h · ctx_h W_hᵀ`` the gate's gradient is ``∂L/∂ξ_h = Σ_ij W_ij ∂L/∂W_ij`` over the columns
of the projection that reads the unit, so the gradients of weights are all that is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..granularity import totals
from .criterion import ANY_SHAPE, Stats, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from ..layout import Target
    from ..shapes import Shape


class Taylor:
    """Score of a unit: ``|Σ w · ∂L/∂w|``, L the mean loss on the calibration sample.

    The sum runs over the weights of a row, column or block, over a head's columns of the out-projection, over a
    neuron's column of the second projection. (Michel et al. average absolute values over examples; here the absolute
    value is of the mean.)
    """

    name = "taylor"
    needs: frozenset[str] = frozenset({"gradient"})
    shapes = ANY_SHAPE

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """See :class:`composer.criteria.criterion.Criterion`."""
        if target.kind == "attention":
            weight, gradient = statistic("slope", target, self.name, stats)
            return (weight * gradient).sum(0).reshape(target.heads, -1).sum(1).abs()
        products = [w * g for w, g in zip(weights, statistic("gradient", target, self.name, stats), strict=True)]
        if target.kind == "feed_forward":
            return products[-1].sum(0).abs()
        return totals(target, products, shape).abs()
