"""Cuts of many targets: statistics gathered once, each target scored once for all rates, scores kept.

Pruning into a library (:mod:`.variants`) and pruning without one (:mod:`.configuration`) differ in where scores are
kept and where weights go; what is removed is decided here, for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ..scheme.layout import Layout, Target
from ..scheme.shapes import Shape, shape_of
from .criteria.choice import criterion_named
from .criteria.criterion import Criterion, moves_weights
from .cut import Cut
from .statistics import inputs_of, reader_of, statistics_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..calibration.gradients import Gradients
    from ..calibration.gram import Gram
    from ..calibration.sample import Calibration

Grams = Mapping[str, "Gram"]
"""Moments of inputs, by the path of the projection that reads them."""
Key = tuple[str, str, Shape]
"""Target, name of the criterion, shape: what scores belong to."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What is scored: a target, by a criterion, in a shape. Its scores serve every rate."""

    path: str
    criterion: Criterion
    shape: Shape

    @classmethod
    def of(cls, layout: Layout, path: str, choice: Mapping[str, str], default: Criterion) -> Selection:
        """What a node or a configuration says of a target beside its rate; ``default`` where it names no criterion."""
        return cls(path, criterion_named(choice.get("criterion"), default), shape_of(choice, layout.target(path)))

    @property
    def key(self) -> Key:
        """Equal for selections that have the same scores."""
        return self.path, self.criterion.name, self.shape

    def needs(self, statistic: str) -> bool:
        """Whether the criterion looks at a statistic."""
        return statistic in self.criterion.needs


class Scores(Protocol):
    """Where scores are kept, so that another rate costs no second selection."""

    def keeps(self, selection: Selection) -> bool:
        """Whether scores of this kind are worth keeping."""
        ...

    def holds(self, selection: Selection) -> bool:
        """Whether they are there."""
        ...

    def get(self, selection: Selection) -> list[Tensor]:
        """One tensor for each part of the target, as :attr:`composer.pruning.cut.Cut.scores`."""
        ...

    def put(self, selection: Selection, scores: Sequence[Tensor]) -> None:
        """Keep them."""
        ...


class ScoresInMemory:
    """All scores that there are, as long as the object lives."""

    def __init__(self) -> None:
        self._scores: dict[Key, list[Tensor]] = {}

    def keeps(self, selection: Selection) -> bool:
        """All, of criteria that have scores."""
        return not moves_weights(selection.criterion)

    def holds(self, selection: Selection) -> bool:
        """Whether they were put here."""
        return selection.key in self._scores

    def get(self, selection: Selection) -> list[Tensor]:
        """What was put here."""
        return self._scores[selection.key]

    def put(self, selection: Selection, scores: Sequence[Tensor]) -> None:
        """Keep them."""
        self._scores[selection.key] = list(scores)


@dataclass(eq=False)
class Cutter:
    """Makes cuts of the base model's targets.

    Attributes:
        parameters: the base model's, by name; they are not changed.
        calibration: gives the moments of inputs and the gradients; called only where a criterion needs them. None
            where none does. Its layout may have fewer targets.
        seed: of criteria that draw; None where none does.
    """

    layout: Layout
    parameters: Mapping[str, Tensor]
    calibration: Callable[[], Calibration] | None
    scores: Scores
    seed: int | None
    _gradients: Gradients | None = field(default=None, init=False)
    _stacks: dict[Key, list[Tensor]] = field(default_factory=dict, init=False)  # sums over a stack

    def cuts(
        self, groups: Mapping[str, Sequence[Selection]], more: Mapping[str, Iterable[str]] | None = None
    ) -> Iterator[tuple[str, dict[Key, Cut], Grams]]:
        """For each group its cuts and moments, in the order of ``groups``.

        Whoever lets go of one group's cuts and moments before asking for the next stays within the sample's memory.

        Args:
            groups: what is scored; execution order lets the sample go through the model once.
            more: by group, further projections whose moments are looked at.
        """
        everything = [s for selections in groups.values() for s in selections]
        self._score_stacks([s for s in everything if s.shape.kind == "stack-head" and s.key not in self._stacks])
        # Asked once for all groups: nothing is gathered for scores that are kept already.
        kept = self._stacks.keys() | {s.key for s in everything if self.scores.holds(s)}
        wants: dict[str, list[str]] = {}
        of_loss: dict[str, list[str]] = {}
        for name, selections in groups.items():
            fresh = [s for s in selections if s.key not in kept and s.needs("gram")]
            paths = [path for s in fresh for path in inputs_of(self.layout, s.path, s.shape)]
            wants[name] = list(dict.fromkeys([*paths, *(more or {}).get(name, ())]))
            weighed = [s for s in selections if s.key not in kept and s.needs("loss_gram")]
            of_loss[name] = list(dict.fromkeys(path for s in weighed for path in self._readers(s)))
        both = zip(self._moments(wants), self._moments(of_loss, of_loss=True), strict=True)
        for (name, grams), (_, loss_grams) in both:
            yield name, {s.key: self._cut(s, grams, loss_grams, kept=s.key in kept) for s in groups[name]}, grams

    def _readers(self, selection: Selection) -> list[str]:
        """Projections that read what a selection scores."""
        return [reader_of(self.layout, part).path for part in selection.shape.parts(self.layout, selection.path)]

    def _score_stacks(self, selections: Sequence[Selection]) -> None:
        """Rank the heads of whole stacks: by index, over the sum of what each is worth in every layer."""
        layers = [
            Selection(path, s.criterion, s.shape.scored) for s in selections for path in self.layout.stack(s.path)
        ]
        groups: dict[str, list[Selection]] = {}
        for one in sorted({s.key: s for s in layers}.values(), key=lambda s: self.layout.paths.index(s.path)):
            groups.setdefault(one.path, []).append(one)
        found = {key: cut.scores[0] for _, cuts, _ in self.cuts(groups) for key, cut in cuts.items()} if groups else {}
        for s in selections:
            own = [found[path, s.criterion.name, s.shape.scored] for path in self.layout.stack(s.path)]
            self._stacks[s.key] = [torch.stack(own).sum(0)]

    def _cut(self, selection: Selection, grams: Grams, loss_grams: Grams, *, kept: bool) -> Cut:
        moments = grams if selection.needs("gram") else {}

        def statistics(part: Target) -> dict[str, Any]:
            gradients = self._gathered_gradients() if selection.needs("gradient") else None
            movement = self.calibration().movement if selection.needs("movement") and self.calibration else None
            weighed = loss_grams if selection.needs("loss_gram") else None
            return statistics_of(self.layout, part, self.parameters, moments, gradients, self.seed, movement, weighed)

        cut = Cut(self.layout, selection.path, selection.shape, selection.criterion, self.parameters, statistics)
        if kept:
            cut.scores = self._stacks.get(selection.key) or self.scores.get(selection)
        elif self.scores.keeps(selection):
            self.scores.put(selection, cut.scores)
        return cut

    def _moments(self, wants: Mapping[str, Sequence[str]], *, of_loss: bool = False) -> Iterator[tuple[str, Grams]]:
        if self.calibration and any(wants.values()):
            sample = self.calibration()
            yield from (sample.knowing_loss if of_loss else sample).moments(wants)
        else:
            yield from ((name, {}) for name in wants)

    def _gathered_gradients(self) -> Gradients | None:
        """Of all targets at once, in a pass of their own when they are first looked at."""
        if self._gradients is None and self.calibration:
            self._gradients = self.calibration().gradients()
        return self._gradients
