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
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...progress import Bar, Progress
from ..work import BlockWaves, Work
from .least_squares_work import memory_of, work_of
from .moments import BaseMoments, RegressionSums, matrix, separated
from .pupils import Pupil, by_place, place_of, watched_blocks, with_equal_inputs, within_memory
from .trainer import BlockSettings, BlockTrainer, Job, Tuned

if TYPE_CHECKING:
    from ...calibration.teacher import Lesson, Teacher


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
    readers: dict[str, list[Pupil]] = {}
    for job in jobs:
        pupil = Pupil(job, teacher.layout.ends(job.block))
        readers.setdefault(pupil.ends[0].last.path, []).append(pupil)
    base = dict(teacher.model.named_parameters())
    moments = teacher.calibration.moments({path: [path] for path in readers})
    began = time.perf_counter()
    for path, grams in moments:
        known = BaseMoments(grams[path], readers[path][0].ends[0].last, base)
        common = (time.perf_counter() - began) / len(readers[path])
        for group in with_equal_inputs(readers[path]):
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


def _on_own_inputs(
    jobs: Sequence[Job], teacher: Teacher, settings: BlockSettings, bar: Bar
) -> Iterator[tuple[Job, Tuned]]:
    """Round by round: in round ``k`` the last projection of every block's ``k``-th sublayer."""
    pupils = [Pupil(job, teacher.layout.ends(job.block)) for job in jobs]
    weights = teacher.calibration.token_weights([end.last for pupil in pupils for end in pupil.ends])
    for k in range(max((len(pupil.ends) for pupil in pupils), default=0)):
        classes: dict[tuple[str, str, str], list[Pupil]] = {}
        for pupil in pupils:
            if k < len(pupil.ends):
                same = pupil.job.upstream if len(pupil.ends) == 1 else pupil.job.name
                classes.setdefault((pupil.job.block.level, pupil.job.block.path, same), []).append(pupil)
        for some in within_memory(list(classes.values()), teacher.calibration.memory, k):
            for part in by_place(some, teacher):
                began = time.perf_counter()
                seen = _seen(part, k, teacher)
                common = (time.perf_counter() - began) / sum(map(len, part))
                for group in part:
                    began = time.perf_counter()
                    tokens = weights[group[0].ends[k].last.path]
                    moments = _moments(group[0], k, seen[place_of(group)], tokens, teacher)
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


def _seen(classes: Sequence[Sequence[Pupil]], k: int, teacher: Teacher) -> dict[tuple[str, str], Seen]:
    """One pass over the calibration sample: what the base model's blocks at the classes' places read and give.

    It is kept for all classes of a place, which then take their moments from it one after the other: those are by
    far larger, and as many as there are different blocks; activations grow with the sample alone.
    """
    firsts = {place_of(group): group[0] for group in classes}
    seen: dict[tuple[str, str], Seen] = {place: [] for place in firsts}
    with teacher.watching(watched_blocks(list(firsts.values()), teacher)):
        for batch in teacher.calibration.batches():
            teacher.show(batch)
            for place, pupil in firsts.items():
                block = pupil.job.block
                seen[place].append((teacher.lesson(block), teacher.stream(pupil.ends[k], block)))
    return seen


def _moments(pupil: Pupil, k: int, seen: Seen, tokens: Sequence[Tensor | None], teacher: Teacher) -> RegressionSums:
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
