"""Movement pruning (Sanh et al. 2020): what a short fine-tuning pushes towards 0 goes, however large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...tensors.ranking import totals
from .criterion import ANY_SHAPE, Stats, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...scheme.shapes import Shape


class Movement:
    """Score of a weight: its rank by magnitude, moved by ``-∂L/∂w · w`` in every step of a fine-tuning
    (:mod:`composer.calibration.movement`); of a larger unit the sum of its weights' (Lagunas et al. 2021)."""

    name = "movement"
    version = 2
    needs: frozenset[str] = frozenset({"movement"})
    shapes = ANY_SHAPE

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """In the shape of the units; see :class:`composer.pruning.criteria.criterion.Criterion`."""
        return totals(target, statistic("movement", target, self.name, stats), shape)
