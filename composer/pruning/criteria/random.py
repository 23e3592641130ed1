"""Chance: the control that any criterion must beat (as ``torch.nn.utils.prune.random_unstructured``)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ...tensors.ranking import totals
from .criterion import ANY_SHAPE, Stats, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...scheme.shapes import Shape


class Random:
    """Score of a unit: drawn from (0, 1) by the run's seed and the target's path.

    Drawn as torch does after ``torch.manual_seed(seed_of(seed, path))``: of single weights the highest draws go
    there, of larger units the lowest.
    """

    name = "random"
    needs: frozenset[str] = frozenset({"seed"})
    shapes = ANY_SHAPE

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """(out, in) for single weights, (out,) for rows, (in,) for columns, (out / R, in / C) for blocks, (heads,) or
        (neurons,); see :class:`composer.pruning.criteria.criterion.Criterion`."""
        import torch

        seed = seed_of(statistic("seed", target, self.name, stats), target.path)
        units = totals(target, weights, shape).shape
        draws = torch.rand(units, generator=torch.Generator().manual_seed(seed)).to(weights[0].device)
        return -draws if target.kind == "linear" and (shape is None or shape.single) else draws


def seed_of(seed: int, path: str) -> int:
    """A seed for each target, so that equal shapes do not get equal masks."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{path}".encode()).digest()[:7])
