"""First-order Taylor expansion of the loss: what setting a unit to 0 would change (Molchanov et al. 2017, 2019).

Heads and neurons are scored by gates ξ = 1 on their output (Michel et al. 2019, "Are sixteen heads really better
than one?"): ``L(ξ_h = 0) ≈ L - ∂L/∂ξ_h``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...tensors.ranking import totals
from .criterion import ANY_SHAPE, Stats, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...scheme.shapes import Shape


class Taylor:
    """Score of a weight: ``|w · ∂L/∂w|``; of a head or neuron: ``|∂L/∂ξ|``; of another unit: the sum of its weights'.

    ``w`` and ``∂L/∂w`` are (out, in), ``∂L/∂ξ`` (heads,) or (neurons,).

    Absolute values are taken of mini-batches (weights) and of single examples (gates) and then averaged, as in both
    papers: near a minimum the gradient of the mean loss says little (:mod:`composer.calibration.gradients`).
    """

    name = "taylor"
    needs: frozenset[str] = frozenset({"gradient"})
    shapes = ANY_SHAPE

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """(heads,) or (neurons,) of gates; (out, in) for single weights, (out,) for rows, (in,) for columns,
        (out / R, in / C) for blocks; see :class:`composer.pruning.criteria.criterion.Criterion`."""
        if target.kind != "linear":
            gates: Tensor = statistic("gates", target, self.name, stats)
            return gates
        gradients = statistic("gradient", target, self.name, stats)
        return totals(target, [w.abs() * gradient for w, gradient in zip(weights, gradients, strict=True)], shape)
