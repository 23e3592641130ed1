"""Blocks that are being repaired: what each needs, and which of them are solved together, within memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from ...scheme.layout import Block, End
from ...tensors.masks import live_columns
from .moments import RegressionSums, kept, matrix, separated
from .trainer import BlockSettings, Job, Look, Tuned

if TYPE_CHECKING:
    from ...calibration.teacher import Teacher

Thing = TypeVar("Thing")

KEPT = 3 * 4
"""Bytes for each token and column of what is kept of a place: its input, its output, the stream."""
ROOM, LEAST = 2, 1 << 28
"""Activations of the sample may take so many times the model's bytes, and so many bytes however small it is."""


@dataclass
class Pupil:
    """A block that is being repaired; its weights are there from the first look at them until it is finished."""

    job: Job
    ends: tuple[End, ...]
    seconds: float = 0.0
    before: float = 0.0
    after: float = 0.0

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All parameters of the block as they are now."""
        return {name: p.detach() for name, p in self.job.start.items()}

    def live(self, teacher: Teacher) -> Tensor:
        """Which columns of the base model's own inputs it reads, (in,) bool."""
        units = self.job.units
        return live_columns(
            units[0] if units else None, teacher.layout.target(self.job.block.targets[-1]), self.job.masks
        )

    def solve(self, k: int, moments: RegressionSums, settings: BlockSettings) -> None:
        """Refit the last projection of the ``k``-th sublayer."""
        last = self.ends[k].last
        start = matrix(self.weights, last)
        made = moments.refit(start, kept(self.job.masks, last, start.device), settings.damping)
        self.weights.update(separated(made.weight, last))
        self.before, self.after = made.before, made.after

    def finished(self, teacher: Teacher, settings: BlockSettings) -> Tuned:
        """The weights, and the error on the calibration sample before and after."""
        epoch = len(teacher.calibration) / len(teacher.calibration.data)
        looks = [
            Look(step, step * epoch, error, None, step * self.seconds, 0.0)
            for step, error in enumerate((self.before, self.after))
        ]
        weights = self.__dict__.pop("weights")
        return Tuned({name: value.clone() for name, value in weights.items()}, looks)


def with_equal_inputs(pupils: Sequence[Pupil]) -> Iterable[list[Pupil]]:
    """Those that read the same columns of the base model's inputs: one of the moments at a time is held."""
    groups: dict[str, list[Pupil]] = {}
    for pupil in pupils:
        groups.setdefault(pupil.job.upstream, []).append(pupil)
    return groups.values()


def place_of(group: Sequence[Pupil]) -> tuple[str, str]:
    block = group[0].job.block
    return block.level, block.path


def by_place(classes: Sequence[Sequence[Pupil]], teacher: Teacher) -> Iterator[list[Sequence[Pupil]]]:
    """Split by place into parts, each with a pass of its own, whose activations fit beside the model."""
    places: dict[tuple[str, str], list[Sequence[Pupil]]] = {}
    for group in classes:
        places.setdefault(place_of(group), []).append(group)

    def size(groups: Sequence[Sequence[Pupil]]) -> int:
        return KEPT * teacher.calibration.tokens * groups[0][0].ends[-1].last.out_features

    model = sum(p.nbytes for p in teacher.model.parameters())
    for part in _fitting(list(places.values()), size, max(ROOM * model, LEAST)):
        yield [group for groups in part for group in groups]


def watched_blocks(pupils: Sequence[Pupil], teacher: Teacher) -> list[Block]:
    """The pupils' blocks and the sublayers inside: ends are recorded of watched blocks only."""
    blocks = {(p.job.block.level, p.job.block.path): p.job.block for p in pupils}
    for pupil in pupils:
        if len(pupil.ends) > 1:
            inside = (b for b in teacher.layout.at("sublayer") if set(b.targets) <= set(pupil.job.block.targets))
            blocks |= {(b.level, b.path): b for b in inside}
    return list(blocks.values())


def within_memory(classes: Sequence[Sequence[Pupil]], memory: int | None, k: int) -> Iterator[list[Sequence[Pupil]]]:
    """Split into parts whose moments fit into ``memory``."""

    def size(group: Sequence[Pupil]) -> int:
        last = group[0].ends[k].last
        return 8 * (last.in_features + 1) * (last.in_features + 1 + last.out_features)

    return _fitting(classes, size, memory)


def _fitting(things: Iterable[Thing], size: Callable[[Thing], int], most: int | None) -> Iterator[list[Thing]]:
    """Consecutive parts of at most so much in all, each of at least one thing; None is no bound."""
    part: list[Thing] = []
    used = 0
    for thing in things:
        if part and most is not None and used + size(thing) > most:
            yield part
            part, used = [], 0
        part.append(thing)
        used += size(thing)
    if part:
        yield part
