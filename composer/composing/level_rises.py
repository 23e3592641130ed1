"""What every level of a model's parts costs the loss, by what pruning and repair really change.

Costs by width (:mod:`composer.calibration.rises`) are those of an ideal order and repair, and several times too small;
within one kind of level that matters little. To tell heads and neurons from single weights both must be measured by
one rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..calibration.loss_moments import LossMoments, gather_loss_moments
from ..choosing.choice import CRITERION, specs_of
from ..choosing.times import grid
from ..choosing.widths import RATES, Level, levels
from ..progress import SILENT, Progress
from ..scheme.layout import Projection
from ..shrinking.units import Units
from ..training.blocks.moments import matrix

if TYPE_CHECKING:
    from .candidates import Candidates


class LevelRises:
    """By part, the predicted rise of the loss at each of its :func:`~composer.choosing.widths.levels`, weights too.

    What pruning and repair change of a projection, ``ΔW``, costs ``½ tr(M ΔW G ΔWᵀ)`` by answer, the second-order model
    of :mod:`composer.calibration.loss_moments`. Products of different projections are left out, as those of different
    parts are. Widths are looked at about ten times, and in between go in proportion; no level costs less than one of
    its kind that keeps more.
    """

    def __init__(self, candidates: Candidates, parts: Sequence[Units], *, progress: Progress = SILENT) -> None:
        """Nothing is gathered yet; what is then serves all ``parts``."""
        self.candidates, self.parts, self.progress = candidates, parts, progress

    def of(self, part: Units) -> list[float]:
        """The rises of one of the parts."""
        return _at_levels(part, {level: self._rise(part, level) for level in _looked_at(part)})

    @cached_property
    def _moments(self) -> dict[str, LossMoments]:
        known = self.candidates
        projections = {
            p.path: p for part in self.parts for p in part.projections
        }  # of a module that holds several, one
        batches = list(known.calibration.batches())
        return gather_loss_moments(known.model, known.task, batches, [*projections.values()], progress=self.progress)

    @torch.no_grad()
    def _rise(self, part: Units, level: Level) -> float:
        known = self.candidates
        weights, _ = known.pruner.prune(specs_of(part, level), CRITERION, repair=True)
        # What rows of removed units give is nothing to those that read them: only these count then.
        changed = part.projections if level.rate else (part.last,)
        return sum(_cost(p, weights, known.parameters, self._moments[p.path]) for p in changed)


def _looked_at(part: Units) -> list[Level]:
    """Some widths but the whole one, and all rates."""
    return [*map(Level, grid(part)[:-1]), *(Level(part.count, rate) for rate in RATES)]


def _at_levels(part: Units, known: Mapping[Level, float]) -> list[float]:
    """From the rises at some widths and at all rates those at every level."""
    kept = [level.kept for level in known if not level.rate]  # from none up
    by_width = np.maximum.accumulate([0.0, *(known[Level(n)] for n in reversed(kept))])[::-1]
    by_rate = np.maximum.accumulate([known[Level(part.count, rate)] for rate in RATES])
    at_rate = dict(zip(RATES, by_rate, strict=True))
    return [
        float(at_rate[level.rate] if level.rate else np.interp(level.kept, [*kept, part.count], by_width))
        for level in levels(part, weights=True)
    ]


def _cost(p: Projection, weights: Mapping[str, Tensor], base: Mapping[str, Tensor], known: LossMoments) -> float:
    change = (matrix(weights, p) - matrix(base, p)).double().cpu()
    metric = p.bias_of(p.bias_of(known.metric.double()).T)  # of a module that holds several projections, this one's
    return float(((metric @ change) * (change @ known.gram.matrix.double())).sum()) / (2 * max(1, known.answers))
