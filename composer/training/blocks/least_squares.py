"""A block's last projections in closed form: what the removed weights did is taken over by those that stay.

With the block's other weights fixed, the stream after a sublayer is linear in its last projection ``W``. Let ``X̂``
be what that projection reads in the pruned block (one column of ones for a bias), ``h_now`` the pruned block's stream
there and ``h_base`` the base model's, both on the base model's inputs. The repaired weights minimise

    ``|X̂ W'ᵀ - (X̂ Wᵀ + h_base - h_now)|² + λ |W' - W|²``   over ``W'`` that are zero where ``W`` is masked.

Only ``X̂ᵀX̂`` and ``YᵀX̂`` are needed. Where pruning changes nothing before the projection (a linear target by itself),
or only removes heads or neurons (their columns are zero, or go with them), both follow from the base model's own
moments, and no further pass is made. A feed-forward's second projection behind a first one that loses other weights
takes one pass in which all variants of the first one are run. A layer refits one sublayer after the other, a pass for
each.

Where the calibration sample's moments know the loss (``--metric loss``), every sum weighs a token by how much the loss
depends on what the projection makes of it. On which of its *outputs* the loss depends, the metric ``M`` of
:mod:`composer.calibration.loss_moments`, drops out: for gaps ``E`` (tokens, out) the slope of ``tr(E M Eᵀ)`` in the
kept weights is ``M EᵀX̂``, and where all rows keep the same inputs it is zero where ``EᵀX̂`` is, whatever ``M``. Where
their masks differ, solving row by row takes ``M`` for diagonal: what one row could do for another is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from ...progress import Bar, Progress
from ...scheme.layout import Block, End
from ...tensors.masks import live_columns
from ..work import BlockWaves, Work
from .least_squares_work import memory_of, work_of
from .moments import BaseMoments, RegressionSums, kept, matrix, separated
from .trainer import BlockSettings, BlockTrainer, Job, Look, Tuned

if TYPE_CHECKING:
    from ...calibration.teacher import Lesson, Teacher

Thing = TypeVar("Thing")

KEPT = 3 * 4
"""Bytes for each token and column of what is kept of a place: its input, its output, the stream."""
ROOM, LEAST = 2, 1 << 28
"""Activations of the sample may take so many times the model's bytes, and so many bytes however small it is."""


class LeastSquares(BlockTrainer):
    """See :class:`.trainer.BlockTrainer`."""

    fields: tuple[str, ...] = ("calibration_size", "damping", "solver")

    @classmethod
    def tune(
        cls, jobs: Sequence[Job], teacher: Teacher, settings: BlockSettings, *, label: str, progress: Progress
    ) -> Iterator[tuple[Job, Tuned]]:
        """Solve every block; blocks that read the same share its moments."""
        with progress.bar(label, len(jobs)) as bar, torch.no_grad():
            yield from _on_base_inputs([job for job in jobs if job.units is not None], teacher, settings, bar)
            yield from _on_own_inputs([job for job in jobs if job.units is None], teacher, settings, bar)

    @classmethod
    def work(cls, blocks: BlockWaves, settings: BlockSettings) -> Iterator[Work]:
        """Solves, and passes over the calibration sample."""
        return work_of(blocks, weighted=settings.metric != "plain")

    @classmethod
    def memory(cls, blocks: BlockWaves, settings: BlockSettings) -> int:
        """Moments, and the matrices of a solve."""
        return memory_of(blocks)


def _on_base_inputs(
    jobs: Sequence[Job], teacher: Teacher, settings: BlockSettings, bar: Bar
) -> Iterator[tuple[Job, Tuned]]:
    readers: dict[str, list[_Pupil]] = {}
    for job in jobs:
        pupil = _Pupil(job, teacher.layout.ends(job.block))
        readers.setdefault(pupil.ends[0].last.path, []).append(pupil)
    base = dict(teacher.model.named_parameters())
    moments = teacher.calibration.moments({path: [path] for path in readers})
    began = time.perf_counter()
    for path, grams in moments:
        known = BaseMoments(grams[path], readers[path][0].ends[0].last, base)
        common = (time.perf_counter() - began) / len(readers[path])
        for group in _with_equal_inputs(readers[path]):
            began = time.perf_counter()
            cut = known.cut(group[0].live(teacher))
            own = (time.perf_counter() - began) / len(group)
            for pupil in group:
                began = time.perf_counter()
                pupil.solve(0, cut, settings)
                pupil.seconds += common + own + time.perf_counter() - began
                yield pupil.job, pupil.finished(teacher, settings)
                bar.advance(path)
        began = time.perf_counter()


def _with_equal_inputs(pupils: Sequence[_Pupil]) -> Iterable[list[_Pupil]]:
    """Those that read the same columns of the base model's inputs: one of the moments at a time is held."""
    groups: dict[str, list[_Pupil]] = {}
    for pupil in pupils:
        groups.setdefault(pupil.job.upstream, []).append(pupil)
    return groups.values()


def _on_own_inputs(
    jobs: Sequence[Job], teacher: Teacher, settings: BlockSettings, bar: Bar
) -> Iterator[tuple[Job, Tuned]]:
    """Round by round: in round ``k`` the last projection of every block's ``k``-th sublayer."""
    pupils = [_Pupil(job, teacher.layout.ends(job.block)) for job in jobs]
    weights = teacher.calibration.token_weights([end.last for pupil in pupils for end in pupil.ends])
    for k in range(max((len(pupil.ends) for pupil in pupils), default=0)):
        classes: dict[tuple[str, str, str], list[_Pupil]] = {}
        for pupil in pupils:
            if k < len(pupil.ends):
                same = pupil.job.upstream if len(pupil.ends) == 1 else pupil.job.name
                classes.setdefault((pupil.job.block.level, pupil.job.block.path, same), []).append(pupil)
        for some in _within(list(classes.values()), teacher.calibration.memory, k):
            for part in _by_place(some, teacher):
                began = time.perf_counter()
                seen = _seen(part, k, teacher)
                common = (time.perf_counter() - began) / sum(map(len, part))
                for group in part:
                    began = time.perf_counter()
                    tokens = weights[group[0].ends[k].last.path]
                    moments = _moments(group[0], k, seen[_place(group)], tokens, teacher)
                    own = (time.perf_counter() - began) / len(group)
                    for pupil in group:
                        began = time.perf_counter()
                        pupil.solve(k, moments, settings)
                        pupil.seconds += common + own + time.perf_counter() - began
                        if k == len(pupil.ends) - 1:
                            yield pupil.job, pupil.finished(teacher, settings)
                            bar.advance(pupil.job.block.path)


Seen = list[tuple["Lesson", Tensor]]
"""Of one place and each batch: what the block there had to do, and the base model's stream at its end."""


def _seen(classes: Sequence[Sequence[_Pupil]], k: int, teacher: Teacher) -> dict[tuple[str, str], Seen]:
    """One pass over the calibration sample: what the base model's blocks at the classes' places read and give.

    It is kept for all classes of a place, which then take their moments from it one after the other: those are by
    far larger, and as many as there are different blocks; activations grow with the sample alone.
    """
    firsts = {_place(group): group[0] for group in classes}
    seen: dict[tuple[str, str], Seen] = {place: [] for place in firsts}
    with teacher.watching(_watched(list(firsts.values()), teacher)):
        for batch in teacher.calibration.batches():
            teacher.show(batch)
            for place, pupil in firsts.items():
                block = pupil.job.block
                seen[place].append((teacher.lesson(block), teacher.stream(pupil.ends[k], block)))
    return seen


def _moments(pupil: _Pupil, k: int, seen: Seen, tokens: Sequence[Tensor | None], teacher: Teacher) -> RegressionSums:
    """The moments of a class, seen through its first block; ``tokens`` are their weights in each batch.

    That block shows the inputs with the base model's last projection in place of its own: which of the class is the
    first depends on what is stored already, and must not change a bit.
    """
    end = pupil.ends[k]
    reference = matrix(dict(teacher.model.named_parameters()), end.last)
    weights = pupil.weights | separated(reference, end.last)
    moments = RegressionSums(end.last, reference)
    for (lesson, wanted), own in zip(seen, tokens, strict=True):
        inputs, stream = lesson.probe(weights, end)
        moments.add(inputs, (wanted - stream) / end.scale, lesson.wanted / end.scale, own)
    return moments


def _place(group: Sequence[_Pupil]) -> tuple[str, str]:
    block = group[0].job.block
    return block.level, block.path


def _by_place(classes: Sequence[Sequence[_Pupil]], teacher: Teacher) -> Iterator[list[Sequence[_Pupil]]]:
    """Split by place into parts, each with a pass of its own, whose activations fit beside the model."""
    places: dict[tuple[str, str], list[Sequence[_Pupil]]] = {}
    for group in classes:
        places.setdefault(_place(group), []).append(group)

    def size(groups: Sequence[Sequence[_Pupil]]) -> int:
        return KEPT * teacher.calibration.tokens * groups[0][0].ends[-1].last.out_features

    model = sum(p.nbytes for p in teacher.model.parameters())
    for part in _fitting(list(places.values()), size, max(ROOM * model, LEAST)):
        yield [group for groups in part for group in groups]


def _watched(pupils: Sequence[_Pupil], teacher: Teacher) -> list[Block]:
    """The pupils' blocks and the sublayers inside: ends are recorded of watched blocks only."""
    blocks = {(p.job.block.level, p.job.block.path): p.job.block for p in pupils}
    for pupil in pupils:
        if len(pupil.ends) > 1:
            inside = (b for b in teacher.layout.at("sublayer") if set(b.targets) <= set(pupil.job.block.targets))
            blocks |= {(b.level, b.path): b for b in inside}
    return list(blocks.values())


def _within(classes: Sequence[Sequence[_Pupil]], memory: int | None, k: int) -> Iterator[list[Sequence[_Pupil]]]:
    """Split into parts whose moments fit into ``memory``."""

    def size(group: Sequence[_Pupil]) -> int:
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


@dataclass
class _Pupil:
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
