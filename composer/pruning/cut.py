"""One target cut: its parts scored once by a criterion, then masks and weights at any rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..scheme.layout import Layout, Projection, Target
from ..scheme.shapes import Shape
from ..tensors import masks
from ..tensors.ranking import Keep, spread
from .criteria.criterion import is_rowwise, moves_weights

if TYPE_CHECKING:
    from .criteria.criterion import Criterion

Pruned = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Weights, and keep-masks, by parameter name."""


class Cut:
    """A target with a criterion and a shape; scores are computed when first needed and serve all rates."""

    def __init__(
        self,
        layout: Layout,
        path: str,
        shape: Shape,
        criterion: Criterion,
        parameters: Mapping[str, Tensor],
        statistics: Callable[[Target], Mapping[str, Any]],
    ) -> None:
        """See above.

        Args:
            parameters: the base model's, by name.
            statistics: what the criterion sees of a part of the target.
        """
        # Wanda compares single weights within output rows, at the same count.
        rowwise = shape.kind == "unstructured" and is_rowwise(criterion)
        self.shape = Shape("per-row") if rowwise else shape
        self.criterion, self.parameters, self.statistics = criterion, parameters, statistics
        self.target, self.asked = layout.target(path), shape
        self.parts = shape.parts(layout, path)

    def at(self, rate: float, dead: Tensor | None = None) -> Pruned:
        """Weights and masks at ``rate``; ``dead`` as in :class:`composer.tensors.ranking.Keep`."""
        keep = Keep(self.shape, rate, dead)
        names = [name for part in self.parts for p in part.projections for name in p.parameters]
        weights = {name: self.parameters[name].detach().clone() for name in names}
        made: dict[str, Tensor] = {}
        if moves_weights(self.criterion):
            for part in self.parts:
                moved, kept = self.criterion.prune(part, self._weights(part), self.statistics(part), keep)
                for p, weight, mask in zip(part.projections, moved, kept, strict=True):
                    p.of(weights[p.weight]).copy_(weight)
                    whole = made.setdefault(p.weight, torch.ones_like(weights[p.weight], dtype=torch.bool))
                    p.of(whole).copy_(mask)
        else:
            for part, units in zip(self.parts, keep(self.scores), strict=True):
                for name, mask in masks.expand(part, spread(part, units, self.shape)).items():
                    made[name] = made[name] & mask if name in made else mask
        masks.apply(weights, made)
        return weights, made

    @cached_property
    def scores(self) -> list[Tensor]:
        """Of the units of each part."""
        return [
            self.criterion.score(part, self._weights(part), self.statistics(part), self.shape) for part in self.parts
        ]

    def _weights(self, part: Target) -> list[Tensor]:
        return [weight_of(p, self.parameters) for p in part.projections]


def weight_of(projection: Projection, parameters: Mapping[str, Tensor]) -> Tensor:
    """A projection's own weight as (out, in)."""
    return projection.of(parameters[projection.weight].detach())
