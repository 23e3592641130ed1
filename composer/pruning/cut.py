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
    from .criteria.criterion import Criterion, MovingCriterion

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
        """Nothing is scored until a rate, or :attr:`scores`, is asked for.

        Args:
            path: of the target.
            shape: of the units.
            parameters: the base model's, by name; they are not changed.
            statistics: what the criterion sees of a part of the target.
        """
        self.target, self.shape = layout.target(path), shape
        self.criterion, self.parameters, self.statistics = criterion, parameters, statistics
        self.parts = shape.parts(layout, path)
        # Wanda compares single weights within output rows; the matrix loses as many as it would otherwise.
        rowwise = shape.kind == "unstructured" and is_rowwise(criterion)
        self._compared = Shape("per-row") if rowwise else shape.scored

    def at(self, rate: float, dead: Tensor | None = None) -> Pruned:
        """Weights and keep-masks at ``rate``, for all parameters of the target's parts.

        Args:
            dead: input columns that carry nothing, (in,) bool (:class:`composer.tensors.ranking.Keep`).
        """
        keep = Keep(self._compared, rate, dead)
        names = [name for part in self.parts for p in part.projections for name in p.parameters]
        weights = {name: self.parameters[name].detach().clone() for name in names}
        kept = self._move(self.criterion, keep, weights) if moves_weights(self.criterion) else self._rank(keep)
        masks.apply(weights, kept)
        return weights, kept

    @cached_property
    def scores(self) -> list[Tensor]:
        """One tensor of scores for each part, in the shape of its units (:func:`composer.tensors.ranking.totals`).

        They do not depend on the rate. Whoever has kept them may set them, and no statistics are looked at.
        """
        return [
            self.criterion.score(part, self._weights(part), self.statistics(part), self._compared)
            for part in self.parts
        ]

    def _move(self, criterion: MovingCriterion, keep: Keep, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keep-masks of a criterion that moves weights; ``weights`` take the moved ones, in place."""
        kept: dict[str, Tensor] = {}
        for part in self.parts:
            moved, own = criterion.prune(part, self._weights(part), self.statistics(part), keep)
            for p, weight, mask in zip(part.projections, moved, own, strict=True):
                # A module may hold several projections in one parameter: each writes its own part of it.
                p.of(weights[p.weight]).copy_(weight)
                whole = kept.setdefault(p.weight, torch.ones_like(weights[p.weight], dtype=torch.bool))
                p.of(whole).copy_(mask)
        return kept

    def _rank(self, keep: Keep) -> dict[str, Tensor]:
        """Keep-masks of a criterion that has scores; parts may share a parameter, of which each masks its own."""
        kept: dict[str, Tensor] = {}
        for part, units in zip(self.parts, keep(self.scores), strict=True):
            for name, mask in masks.expand(part, spread(part, units, self._compared)).items():
                kept[name] = kept[name] & mask if name in kept else mask
        return kept

    def _weights(self, part: Target) -> list[Tensor]:
        return [weight_of(p, self.parameters) for p in part.projections]


def weight_of(projection: Projection, parameters: Mapping[str, Tensor]) -> Tensor:
    """A projection's own weight as (out, in)."""
    return projection.of(parameters[projection.weight].detach())
