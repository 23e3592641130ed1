"""Pruning the base model without a library: targets cut and made good in closed form, on one calibration pass.

What is removed is decided where pruning into a library decides it (:mod:`composer.pruning.cutter`,
:mod:`composer.pruning.configuration`); the model is not changed, weights and masks are handed back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..pruning.configuration import prune_configuration
from ..pruning.criteria import CRITERIA
from ..pruning.cutter import Cutter, Grams, Scores, ScoresInMemory, Selection
from ..scheme.configurations import Assignment
from ..scheme.layout import Layout
from .repair import Repair

if TYPE_CHECKING:
    from torch import Tensor

    from ..calibration.sample import Calibration
    from ..pruning.cut import Cut, Pruned


class ModelPruner:
    """Prunes single targets and whole configurations; scores are kept, so that a further rate costs no selection."""

    def __init__(
        self,
        layout: Layout,
        parameters: Mapping[str, Tensor],
        calibration: Calibration | None,
        *,
        damping: float = 0.01,
        seed: int = 0,
        dead_columns: bool = True,
        scores: Scores | None = None,
    ) -> None:
        """Nothing is gathered or scored yet.

        Args:
            parameters: the base model's, by name.
            calibration: may be of a layout that has fewer targets; None serves criteria that look at no data, without
                repair.
            damping: of the repair (:class:`.repair.Repair`).
            seed: of criteria that draw.
            dead_columns: as for :class:`composer.pruning.configuration.PrunedTargets`.
            scores: where they are kept; None keeps them in memory, as long as this lives.
        """
        self.calibration, self.dead_columns = calibration, dead_columns
        given = None if calibration is None else lambda: calibration
        self.cutter = Cutter(layout, parameters, given, scores or ScoresInMemory(), seed)
        self.repair = Repair(layout, parameters, damping)

    def cuts(self, selections: Sequence[Selection], *, repair: bool) -> Iterator[tuple[Selection, Cut, Grams]]:
        """The cut of each selection in execution order, and all moments that it and its repair need."""
        groups = {path: [s for s in selections if s.path == path] for path in self.cutter.layout.paths}
        groups = {path: group for path, group in groups.items() if group}
        more = {path: self.repair.inputs(group) for path, group in groups.items()} if repair else None
        for path, cuts, grams in self.cutter.cuts(groups, more):
            for selection in groups[path]:
                yield selection, cuts[selection.key], grams

    def prune(self, assigned: Assignment, criterion: str, *, repair: bool) -> Pruned:
        """Weights and masks of a whole configuration, by parameter name.

        Args:
            criterion: of the targets for which the configuration names none.
            repair: refit what is left, sublayer by sublayer.
        """
        weights: dict[str, Tensor] = {}
        removed: dict[str, Tensor] = {}
        for _, (own, masks) in self.sublayers(assigned, criterion, repair=repair):
            weights |= own
            removed |= masks
        return weights, removed

    def sublayers(
        self, assigned: Assignment, criterion: str, *, repair: bool
    ) -> Iterator[tuple[tuple[str, ...], Pruned]]:
        """The same, one sublayer after the other, each with the paths of its targets; none looks at another."""
        for sublayer in prune_configuration(
            self.cutter,
            assigned,
            CRITERIA.get(criterion)(),
            dead_columns=self.dead_columns,
            more=self.repair.inputs if repair else lambda _: (),
        ):
            weights, masks = sublayer.targets.weights, sublayer.targets.masks
            if repair:
                weights = self.repair.refitted(sublayer.selections, weights, masks, sublayer.grams)
            yield tuple(selection.path for selection in sublayer.selections), (weights, masks)
