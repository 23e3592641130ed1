"""One configuration pruned, without a library; and how the targets of a sublayer depend on each other, with or without.

A target is cut by itself, but for two things. Removed heads leave nothing but zeros in their columns of what the
projection behind them reads, so that with ``dead_columns`` its removals go there first, where they cost nothing. And
where two targets share a parameter (or one takes columns of the other along, as neurons do) what either removes is
gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..scheme.configurations import Assignment, Spec
from ..scheme.layout import Layout, Target
from ..scheme.shapes import Shape
from ..tensors import masks
from .criteria.criterion import Criterion
from .cut import Cut, Pruned
from .cutter import Cutter, Grams, Selection

if TYPE_CHECKING:
    from torch import Tensor


class PrunedTargets:
    """Weights and keep-masks, by parameter name, of targets of a sublayer that are pruned one after the other.

    They come in execution order: heads before the projection that reads them.
    """

    def __init__(self, layout: Layout, *, dead_columns: bool) -> None:
        """Nothing is pruned yet.

        Args:
            dead_columns: what reads removed heads loses weights first in their columns; its count stays.
        """
        self.layout, self.dead_columns = layout, dead_columns
        self.weights: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        self._heads: dict[str, Target] = {}  # path of the reading projection -> the target that lost heads

    def cut(self, cut: Cut, rate: float) -> None:
        """Prune one more target."""
        self.add(cut.target, cut.shape, cut.at(rate, self._dead_inputs(cut.target)))

    def add(self, target: Target, shape: Shape, pruned: Pruned) -> None:
        """Take one more target as it was pruned elsewhere."""
        weights, keep = pruned
        shared = [name for name in weights if name in self.masks]
        for name, mask in keep.items():
            self.masks[name] = self.masks[name] & mask if name in self.masks else mask
        self.weights |= weights
        # What has just replaced a shared parameter has kept what an earlier target removed.
        masks.apply(self.weights, {name: self.masks[name] for name in shared})
        if shape.by_heads:
            self._heads[self.layout.out_projection(target.path).path] = target

    def _dead_inputs(self, target: Target) -> Tensor | None:
        """Input columns of a target that carry nothing, (in,) bool; None where that is not looked at."""
        heads = self._heads.get(target.projections[0].path) if target.kind == "linear" else None
        return ~masks.live_columns(heads, target, self.masks) if heads and self.dead_columns else None


@dataclass(frozen=True)
class PrunedSublayer:
    """The pruned targets of a sublayer, and the moments that were gathered for it."""

    selections: Sequence[Selection]
    targets: PrunedTargets
    grams: Grams


def prune_configuration(
    cutter: Cutter,
    assigned: Assignment,
    criterion: Criterion,
    *,
    dead_columns: bool,
    more: Callable[[Sequence[Selection]], Iterable[str]] = lambda _: (),
) -> Iterator[PrunedSublayer]:
    """Prune the targets of a configuration, sublayer by sublayer in execution order.

    The masks are those that a library of the same configuration has, composed.

    Args:
        criterion: of the targets for which the configuration names none.
        dead_columns: as for :class:`PrunedTargets`.
        more: further projections whose moments are looked at, for the selections of a sublayer.
    """
    groups = _by_sublayer(cutter.layout, assigned, criterion)
    looked_at = {name: more(selections) for name, selections in groups.items()}
    for name, cuts, grams in cutter.cuts(groups, looked_at):
        pruned = PrunedTargets(cutter.layout, dead_columns=dead_columns)
        for selection in groups[name]:
            said = assigned[selection.path]
            pruned.cut(cuts[selection.key], said.rate if isinstance(said, Spec) else said)
        yield PrunedSublayer(groups[name], pruned, grams)


def _by_sublayer(layout: Layout, assigned: Assignment, criterion: Criterion) -> dict[str, list[Selection]]:
    """Selections in execution order, by sublayer; a target of no sublayer is by itself."""
    places = {path: block.path for block in layout.at("sublayer") for path in block.targets}
    groups: dict[str, list[Selection]] = {}
    for path in sorted(assigned, key=layout.paths.index):
        said = assigned[path]
        choice = said.choice if isinstance(said, Spec) else {}
        groups.setdefault(places.get(path, path), []).append(Selection.of(layout, path, choice, criterion))
    return groups
