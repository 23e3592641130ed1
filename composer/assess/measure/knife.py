"""Pruning without a library: targets cut and made good in closed form, on one calibration pass.

What does it is the engine's own: :class:`composer.pruning.cut.Cut` with the statistics of
:mod:`composer.pruning.variants`, and the masked least squares of :mod:`composer.training.blocks.moments`. Each pruned
matrix is refitted on its mask, on the base model's inputs; what removed heads and neurons did is taken over by the
projection that reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...pruning.criteria import CRITERIA
from ...pruning.criteria.criterion import moves_weights
from ...pruning.cut import Cut, Pruned
from ...pruning.variants import inputs_of, statistics_of
from ...scheme.configurations import Assignment, Spec
from ...scheme.layout import Layout, Projection, Target
from ...scheme.shapes import Shape, shape_of
from ...tensors import masks
from ...training.blocks.moments import Moments, kept, matrix

if TYPE_CHECKING:
    from torch import Tensor

    from ...calibration.gradients import Slopes
    from ...calibration.gram import Gram
    from ...calibration.sample import Calibration
    from ...pruning.criteria.criterion import Criterion

Grams = Mapping[str, "Gram"]

TOLERANCE = 1e-2
"""Residual of a row relative to its right side: two to three times as quick as what trainers take, and near enough to
tell what repair is worth."""
SOLVED = 1 << 30
"""Most bytes of refitted matrices that are kept: curves and proposals prune targets as sensitivities do."""


@dataclass(frozen=True)
class Way:
    """How one target is pruned."""

    path: str
    shape: Shape
    criterion: str
    rate: float = 0.0

    @classmethod
    def of(cls, path: str, said: float | Spec, criterion: str, layout: Layout) -> Way:
        """What a configuration says of a target; ``criterion`` where it names none."""
        spec = said if isinstance(said, Spec) else Spec(rate=said)
        return cls(path, shape_of(spec.choice, layout.target(path)), spec.criterion or criterion, spec.rate)


@dataclass(frozen=True)
class Refit:
    """A projection that makes good what was removed; ``before`` are the heads or neurons that it reads, if pruned."""

    last: Projection
    before: Target | None = None


@dataclass(eq=False)
class Knife:
    """Cuts targets of the base model; scores are kept, so that a further rate costs no second selection.

    ``calibration`` may be of a layout that has fewer targets. The model is not changed.
    """

    layout: Layout
    parameters: Mapping[str, Tensor]
    calibration: Calibration
    damping: float = 0.01
    seed: int = 0
    dead_columns: bool = True
    _scores: dict[tuple[str, Shape, str], list[Tensor]] = field(default_factory=dict)
    _made: dict[str, Criterion] = field(default_factory=dict)
    _slopes: Slopes | None = None
    _solved: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def cuts(self, ways: Sequence[Way], *, repair: bool) -> Iterator[tuple[str, list[Way], Grams]]:
        """The targets of ``ways`` in execution order, each with its ways and all moments that these need."""
        groups = {path: [way for way in ways if way.path == path] for path in self.layout.paths}
        groups = {path: some for path, some in groups.items() if some}
        for path, grams in self._moments({path: self._wanted(some, repair) for path, some in groups.items()}):
            yield path, groups[path], grams

    def prune(self, assigned: Assignment, criterion: str, *, repair: bool) -> Pruned:
        """Weights and masks of a whole configuration, by parameter name.

        Args:
            criterion: of the targets for which the configuration names none.
        """
        ways = [Way.of(path, said, criterion, self.layout) for path, said in assigned.items()]
        ways.sort(key=lambda way: self.layout.paths.index(way.path))
        groups = self._by_sublayer(ways)
        weights: dict[str, Tensor] = {}
        removed: dict[str, Tensor] = {}
        for key, grams in self._moments({key: self._wanted(some, repair) for key, some in groups.items()}):
            own: dict[str, Tensor] = {}
            for way in groups[key]:
                before = self._heads_before(way.path, groups[key])
                dead = ~masks.live_columns(before, self.layout.target(way.path), removed) if before else None
                cut, keep = self.at(way, grams, dead if self.dead_columns else None)
                for name, mask in keep.items():
                    # Where matrices share a parameter, or neurons took columns, both hold.
                    removed[name] = removed[name] & mask if name in removed else mask
                own |= cut
            masks.apply(own, {name: removed[name] for name in own if name in removed})
            weights |= self.refitted(groups[key], own, removed, grams) if repair else own
        return weights, removed

    def at(self, way: Way, grams: Grams, dead: Tensor | None = None) -> Pruned:
        """Weights and masks of one target, as :meth:`composer.pruning.cut.Cut.at`."""
        key = way.path, way.shape, way.criterion
        criterion = self._criterion(way.criterion)
        slopes = self._gradients() if "gradient" in criterion.needs else None
        seen = grams if "gram" in criterion.needs else {}

        def statistics(part: Target) -> dict[str, Any]:
            return statistics_of(self.layout, part, self.parameters, seen, slopes, self.seed)

        cut = Cut(self.layout, way.path, way.shape, criterion, self.parameters, statistics)
        if key in self._scores:
            cut.scores = self._scores[key]
        elif not moves_weights(criterion):
            self._scores[key] = cut.scores
        return cut.at(way.rate, dead)

    def refitted(
        self,
        ways: Sequence[Way],
        weights: Mapping[str, Tensor],
        removed: Mapping[str, Tensor],
        grams: Grams,
        memory: dict[tuple[Any, ...], Moments] | None = None,
    ) -> dict[str, Tensor]:
        """``weights`` with every projection refitted that can make good what ``ways`` removed, and those projections.

        Args:
            memory: moments with their factor, shared by calls for the same target.
        """
        made = {name: value.clone() for name, value in weights.items()}
        for refit in self._refits(ways):
            last = refit.last
            width = last.in_features
            live = masks.live_columns(refit.before, Target("", "linear", (last,)), removed)
            key = (last.path, last.part, *live.logical_not().nonzero().flatten().tolist())
            memory = {} if memory is None else memory
            for name in last.parameters:
                made.setdefault(name, self.parameters[name].detach().clone())
            start = matrix(made, last)
            keep = kept(removed, last, start.device)
            same = *key, _digest(start), _digest(keep)
            if (solved := self._solved.get(same)) is None:
                if key not in memory:
                    memory[key] = Moments.of(grams[last.path], last, self.parameters, live)
                solved = memory[key].solve(start, keep, self.damping, tolerance=TOLERANCE)
                if sum(held.nbytes for held in self._solved.values()) + solved.nbytes <= SOLVED:
                    self._solved[same] = solved
            last.of(made[last.weight]).copy_(solved[:, :width])
            if last.bias_name:
                last.bias_of(made[last.bias_name]).copy_(solved[:, width])
        return made

    def _refits(self, ways: Sequence[Way]) -> list[Refit]:
        found: dict[tuple[str, Any], Refit] = {}
        for way in ways:
            for part in way.shape.parts(self.layout, way.path):
                if way.shape.kind == "head":
                    some = [Refit(self.layout.out_projection(way.path), part)]
                elif way.shape.kind == "neuron":
                    some = [Refit(part.projections[-1], part)]
                else:
                    some = [Refit(p) for p in part.projections]
                for refit in some:  # an out-projection that loses weights too knows already whose heads it reads
                    found.setdefault((refit.last.path, refit.last.part), refit)
        return list(found.values())

    def _wanted(self, ways: Iterable[Way], repair: bool) -> list[str]:
        """Projections whose moments are looked at."""
        ways = list(ways)
        found = [p for way in ways if self._needs(way) for p in inputs_of(self.layout, way.path, way.shape)]
        found += [refit.last.path for refit in self._refits(ways)] if repair else []
        return list(dict.fromkeys(found))

    def _moments(self, wants: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Grams]]:
        if not any(wants.values()):
            yield from ((key, {}) for key in wants)
            return
        yield from self.calibration.moments(wants)

    def _needs(self, way: Way) -> bool:
        return "gram" in self._criterion(way.criterion).needs

    def _criterion(self, name: str) -> Criterion:
        if name not in self._made:
            self._made[name] = CRITERIA.get(name)()
        return self._made[name]

    def _gradients(self) -> Slopes:
        if self._slopes is None:
            self._slopes = self.calibration.slopes()
        return self._slopes

    def _by_sublayer(self, ways: Sequence[Way]) -> dict[str, list[Way]]:
        places = {path: block.path for block in self.layout.at("sublayer") for path in block.targets}
        found: dict[str, list[Way]] = {}
        for way in ways:
            found.setdefault(places.get(way.path, way.path), []).append(way)
        return found

    def _heads_before(self, path: str, ways: Sequence[Way]) -> Target | None:
        """The target pruned by heads that the linear target at ``path`` reads, if there is one in its sublayer."""
        for way in ways:
            if way.shape.kind != "head" or way.path == path:
                continue
            if self.layout.out_projection(way.path).path == self.layout.target(path).projections[0].path:
                return self.layout.target(way.path)
        return None


def removed_weights(layout: Layout, paths: Iterable[str], removed: masks.Masks) -> dict[str, int]:
    """Target path -> how many of its weights are masked."""
    return {
        path: sum(int((~p.of(removed[p.weight])).sum()) for p in layout.target(path).projections if p.weight in removed)
        for path in paths
    }


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().cpu().numpy().tobytes()).hexdigest()
