"""Optimal brain surgeon on moments that know the loss: heads and neurons that the model's answers miss least."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .criterion import statistic
from .obs import head_order, seen_by_loss

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...scheme.shapes import Shape
    from .criterion import Stats


class ObsLoss:
    """As :class:`.obs.Obs` with moments that know the loss, for one target; what stays is repaired as the run says.

    With the token weights and the output metric ``M = RᵀR`` of :mod:`composer.calibration.loss_moments` the pass goes
    over ``R W`` of the projection that reads the heads or neurons, (out, in). ``--metric loss`` lets repair and the
    sweep look at these moments too; this criterion does not, so that a configuration can name it for some targets.
    """

    name = "obs_loss"
    needs: frozenset[str] = frozenset({"loss_gram"})
    shapes: frozenset[str] = frozenset({"head", "neuron"})

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """(heads,) or (neurons,); see :class:`composer.pruning.criteria.criterion.Criterion`."""
        weight, gram = statistic("loss_gram", target, self.name, stats)
        return head_order(seen_by_loss(weight, gram), gram, target.heads)
