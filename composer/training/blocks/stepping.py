"""The loop of trainers that learn batch by batch: one teacher pass feeds every block that is still learning."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from ...progress import Progress
from ...tensors.batches import batch_indices, in_order
from ..settings import broke_text, finite
from ..work import BlockWaves, Work
from .trainer import BlockSettings, BlockTrainer, Job, Look, Run, Tuned

if TYPE_CHECKING:
    from ...calibration.teacher import Teacher

VALIDATIONS = 8
"""How often a block is validated, spread over its steps."""


class Stepping(BlockTrainer):
    """One block that learns by steps; the best weights of all validations win, and patience ends it early."""

    fields: tuple[str, ...] = ("steps", "batch_size", "learning_rate", "patience")
    takes_steps = True

    @classmethod
    @abstractmethod
    def start(cls, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], settings: BlockSettings) -> Self:
        """Start from ``parameters`` (copied); ``masks`` are held throughout."""

    @abstractmethod
    def step(self, run: Run, wanted: Tensor) -> float:
        """Learn from one batch; returns the error before it.

        Args:
            run: runs the block on that batch's inputs with the parameters it is called with, as often as wished.
            wanted: the base model's output there, (tokens, width).
        """

    @abstractmethod
    def error(self, run: Run, wanted: Tensor) -> float:
        """The error with the current parameters; nothing changes."""

    @abstractmethod
    def finish(self) -> dict[str, Tensor]:
        """The current parameters."""

    @classmethod
    def tune(
        cls, jobs: Sequence[Job], teacher: Teacher, settings: BlockSettings, *, label: str, progress: Progress
    ) -> Iterator[tuple[Job, Tuned]]:
        """See :class:`.trainer.BlockTrainer`."""
        learners = [_Learner(job, cls.start(job.start, job.masks, settings)) for job in jobs]
        every = steps_between_looks(settings.steps)
        with teacher.watching([job.block for job in jobs]), progress.bar(label, settings.steps) as bar:
            _validate(learners, teacher, settings, 0)
            for step in range(1, settings.steps + 1):
                live = [learner for learner in learners if learner.active]
                if not live:
                    break
                size = len(teacher.examples["train"])
                # By the step's number, not by who is left: a block learns the same whenever its neighbours stop.
                _learn(live, teacher, batch_indices(size, settings.batch_size, seed=settings.seed, step=step - 1))
                if step % every == 0 or step == settings.steps:
                    _validate(live, teacher, settings, step)
                    for learner in live:
                        learner.active = learner.active and step < settings.steps
                        if not learner.active:
                            if learner.looks[-1].valid_loss is None:
                                progress.note(broke_text(learner.job.name, step))
                            yield learner.job, Tuned(learner.best_weights, learner.looks)
                bar.advance(f"{len(live)} of {len(jobs)} still learning")

    @classmethod
    def work(cls, blocks: BlockWaves, settings: BlockSettings) -> Iterator[Work]:
        """Steps and validations; one pass of the base model feeds all blocks of a wave. Blocks may stop early."""
        every = steps_between_looks(settings.steps)
        batches = -(-blocks.valid // settings.batch_size)
        looks = 1 + -(-settings.steps // every)  # one before the first step
        least, least_looks = min(settings.steps, every * settings.patience), 1 + min(looks - 1, settings.patience)
        for wave in blocks.waves:
            yield Work("teach", settings.steps + batches * looks, least=least + batches * least_looks)
            for node in wave:
                size, of = blocks.sizes.weights(node), (blocks.like(node),)
                yield Work("learn", settings.steps, of, size, least)
                yield Work("look", batches * looks, of, size, batches * least_looks)


def steps_between_looks(steps: int) -> int:
    """How many steps lie between two validations."""
    return max(1, -(-steps // VALIDATIONS))


@dataclass
class _Learner:
    """A block that is being tuned."""

    job: Job
    trainer: Stepping
    best: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0
    active: bool = True
    train_seconds: float = 0.0
    valid_seconds: float = 0.0
    errors: list[float] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


def _learn(learners: Sequence[_Learner], teacher: Teacher, indices: Sequence[int]) -> None:
    """A step of each block on one batch; the seconds of the base model's pass are divided between them."""
    began = time.perf_counter()
    teacher.teach("train", indices)
    common = (time.perf_counter() - began) / len(learners)
    for learner in learners:
        began = time.perf_counter()
        lesson = teacher.lesson(learner.job.block)
        learner.errors.append(learner.trainer.step(lesson, lesson.wanted))
        learner.train_seconds += common + time.perf_counter() - began


def _validate(learners: Sequence[_Learner], teacher: Teacher, settings: BlockSettings, step: int) -> None:
    """Errors on the whole validation split, the mean over examples: the last batch may be smaller."""
    data = teacher.examples["valid"]
    total = dict.fromkeys((learner.job.name for learner in learners), 0.0)
    for indices in in_order(len(data), settings.batch_size):
        began = time.perf_counter()
        teacher.teach("valid", indices)
        common = (time.perf_counter() - began) / len(learners)
        for learner in learners:
            began = time.perf_counter()
            lesson = teacher.lesson(learner.job.block)
            total[learner.job.name] += learner.trainer.error(lesson, lesson.wanted) * len(indices)
            learner.valid_seconds += common + time.perf_counter() - began
    epoch = step * settings.batch_size / len(teacher.examples["train"])
    for learner in learners:
        _judge(learner, total[learner.job.name] / len(data), settings.patience, step=step, epoch=epoch)


def _judge(learner: _Learner, error: float, patience: int, **place: Any) -> None:
    """Keep the best weights so far; stop after ``patience`` validations without a better one.

    The start counts as a candidate whatever its error is: there are always weights to give back.
    """
    if error < learner.best or not learner.looks:
        learner.best, learner.best_weights, learner.stale = error, learner.trainer.finish(), 0
    else:
        learner.stale += 1
    learner.active = learner.stale < patience
    train = sum(learner.errors) / len(learner.errors) if learner.errors else None
    learner.errors.clear()
    learner.looks.append(
        Look(
            train_loss=finite(train),
            valid_loss=finite(error),
            train_seconds=learner.train_seconds,
            valid_seconds=learner.valid_seconds,
            **place,
        )
    )
