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
        """Learn from one batch; returns the error before it."""

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
        pupils = [_Pupil(job, cls.start(job.start, job.masks, settings)) for job in jobs]
        every = steps_between_looks(settings.steps)
        with teacher.watching([job.block for job in jobs]), progress.bar(label, settings.steps) as bar:
            _validate(pupils, teacher, settings, 0)
            for step in range(1, settings.steps + 1):
                live = [pupil for pupil in pupils if pupil.active]
                if not live:
                    break
                size = len(teacher.examples["train"])
                _learn(live, teacher, batch_indices(size, settings.batch_size, seed=settings.seed, step=step - 1))
                if step % every == 0 or step == settings.steps:
                    _validate(live, teacher, settings, step)
                    for pupil in live:
                        pupil.active = pupil.active and step < settings.steps
                        if not pupil.active:
                            yield pupil.job, Tuned(pupil.best_weights, pupil.looks)
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
class _Pupil:
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


def _learn(pupils: Sequence[_Pupil], teacher: Teacher, indices: Sequence[int]) -> None:
    began = time.perf_counter()
    teacher.teach("train", indices)
    common = (time.perf_counter() - began) / len(pupils)
    for pupil in pupils:
        began = time.perf_counter()
        lesson = teacher.lesson(pupil.job.block)
        pupil.errors.append(pupil.trainer.step(lesson, lesson.wanted))
        pupil.train_seconds += common + time.perf_counter() - began


def _validate(pupils: Sequence[_Pupil], teacher: Teacher, settings: BlockSettings, step: int) -> None:
    data = teacher.examples["valid"]
    total = dict.fromkeys((pupil.job.name for pupil in pupils), 0.0)
    for indices in in_order(len(data), settings.batch_size):
        began = time.perf_counter()
        teacher.teach("valid", indices)
        common = (time.perf_counter() - began) / len(pupils)
        for pupil in pupils:
            began = time.perf_counter()
            lesson = teacher.lesson(pupil.job.block)
            total[pupil.job.name] += pupil.trainer.error(lesson, lesson.wanted) * len(indices)
            pupil.valid_seconds += common + time.perf_counter() - began
    epoch = step * settings.batch_size / len(teacher.examples["train"])
    for pupil in pupils:
        _judge(pupil, total[pupil.job.name] / len(data), settings.patience, step=step, epoch=epoch)


def _judge(pupil: _Pupil, error: float, patience: int, **place: Any) -> None:
    """Keep the best weights so far; stop after ``patience`` validations without a better one."""
    if error < pupil.best or not pupil.looks:
        pupil.best, pupil.best_weights, pupil.stale = error, pupil.trainer.finish(), 0
    else:
        pupil.stale += 1
    pupil.active = pupil.stale < patience
    train = sum(pupil.errors) / len(pupil.errors) if pupil.errors else None
    pupil.errors.clear()
    pupil.looks.append(
        Look(
            train_loss=train,
            valid_loss=error,
            train_seconds=pupil.train_seconds,
            valid_seconds=pupil.valid_seconds,
            **place,
        )
    )
