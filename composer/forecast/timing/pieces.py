"""What the pieces of work take on this machine: each kind tried a few times, through the real code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...calibration.teacher import Lesson
from ...composing.refit import sweep
from ...library.store import Library
from ...progress import SILENT, Bar, Progress
from ...scheme.graph import Node
from ...steps.settings import model_settings
from ...tasks.task import Examples, input_lengths
from ...tensors import masks
from ...tensors.batches import batch_indices, grouped_by_length
from ...tensors.forward import to_device_of
from ...tensors.mask_holder import MaskHolder
from ...tensors.parameters import parameters_of
from ...training.blocks import TRAINERS
from ...training.blocks.stepping import Stepping
from ...training.blocks.trainer import BlockSettings, Job, Start
from ...training.joint import Variant
from ...training.loop import train_whole
from ...training.settings import ModelSettings
from ...training.work import Work
from ..workload import Key
from .closed_forms import LEAST, ClosedForms
from .hooks import TimedAlone, TimedTogether
from .timed_model import SAMPLE

LONG = 5.0
"""A piece that would take more seconds than this is not tried: the largest that was tried is scaled up."""
SHORT = 0.3
"""Seconds up to which a kind is tried again, up to :data:`SAMPLE` times."""
WRITTEN = 8 * 2**20
"""Bytes of the file that is written to see how fast that goes."""


class Seconds(NamedTuple):
    """What one piece takes: in its quickest, its middling and its slowest try."""

    least: float
    about: float
    most: float

    def times(self, factor: float) -> Seconds:
        """Of a piece that is so many times as much."""
        return Seconds(*(factor * seconds for seconds in self))


def measure(pieces: Pieces, works: Iterable[Work], progress: Progress = SILENT) -> dict[Key, Seconds]:
    """Seconds of one piece of each unit and kind (:attr:`Work.of`).

    Of each unit the least comes first, so that the others can be scaled from it.
    """
    kinds = {(work.unit, work.of): work for work in works}
    seconds: dict[Key, Seconds] = {}
    largest: dict[str, tuple[float, Seconds]] = {}
    with progress.bar("time a few batches", len(kinds)) as bar:
        for key, work in sorted(kinds.items(), key=lambda item: (item[0][0], item[1].operations)):
            tried, took = largest.get(work.unit, (work.operations, Seconds(0.0, 0.0, 0.0)))
            scaled = took.times(work.operations / tried)
            if scaled.about > LONG:
                seconds[key] = scaled
            else:
                seconds[key] = _tried(pieces, work)
                largest[work.unit] = work.operations, seconds[key]
            bar.advance(work.unit)
    return seconds


def _tried(pieces: Pieces, work: Work) -> Seconds:
    """Seconds of one piece; what is over in no time is tried more often: a hiccup would be taken for all pieces."""
    tries: list[float] = []
    while len(tries) < LEAST or (len(tries) < SAMPLE and sum(tries) < SHORT):
        tries += pieces.units[work.unit](*work.of)
    return Seconds(min(tries), median(tries), max(tries))


class Pieces(ClosedForms):
    """One method for each unit of :class:`~..workload.Work`: takes its ``of``, returns seconds of one try or more."""

    @cached_property
    def units(self) -> Mapping[str, Callable[..., Sequence[float]]]:
        """Unit -> what tries a piece of it."""
        return {
            "gather": self.gather,
            "show": self.show,
            "probe": self.probe,
            "select": self.select,
            "solve": self.solve,
            "prepare": self.prepare,
            "teach": self.teach,
            "learn": self.learn,
            "look": self.look,
            "block": self.whole_block,
            "step": self.step,
            "joint": self.joint,
            "answer": self.answer,
            "file": self.file,
            "byte": self.byte,
            "compose": self.compose,
            "sweep": self.sweep,
        }

    @property
    def wave_settings(self) -> BlockSettings:
        """Settings of the blocks that are tuned one by one; where there are none, none of their work is tried."""
        assert self.setting.waves is not None
        return self.setting.waves

    # Steps -----------------------------------------------------------------------------------------------

    def teach(self) -> Sequence[float]:
        """A pass over one batch of blocks."""
        with self.teacher.watching(list(self.layout.at("sublayer")) or list(self.layout.blocks)):
            return self.repeated(lambda step: self.teacher.teach("train", self.batch(step)))

    def learn(self, name: str) -> Sequence[float]:
        """One block's step."""
        return self._with_lesson(name, lambda block, lesson: block.step(lesson, lesson.wanted))

    def look(self, name: str) -> Sequence[float]:
        """One block's validation on one batch."""
        return self._with_lesson(name, lambda block, lesson: block.error(lesson, lesson.wanted))

    def _with_lesson(self, name: str, work: Callable[[Stepping, Lesson], float]) -> Sequence[float]:
        """Seconds of ``work`` on a block that has begun to learn, with what the base model did on one batch."""
        node = self.scheme.nodes[name]
        block = self.block(node)
        trainer: Any = TRAINERS.get(self.wave_settings.trainer)  # a Stepping one: others have no such work
        learning = trainer.start(self.weights(node), self.masks(node), self.wave_settings)
        with self.teacher.watching([block]):
            self.teacher.teach("train", self.batch(0))
            return self.repeated(lambda _: work(learning, self.teacher.lesson(block)))

    def whole_block(self, name: str) -> Sequence[float]:
        """All that the trainer does to one block by itself, on the whole calibration sample where it looks at that."""
        node = self.scheme.nodes[name]
        job = Job(name, self.block(node), lambda: Start(self.weights(node), self.masks(node)), upstream=name)
        trainer, settings = TRAINERS.get(self.wave_settings.trainer), self.wave_settings
        tuned = partial(trainer.tune, [job], self.whole_teacher, settings, label=settings.trainer, progress=SILENT)
        return [self.took(lambda: list(tuned()))]

    def step(self, batch_size: int) -> Sequence[float]:
        """A step of the middle configuration, by the real training loop."""
        keep = self.masks(self._middle)
        with TemporaryDirectory() as folder, MaskHolder(parameters_of(self.model), keep) as holder:
            loop = self._loop(batch_size), Path(folder), Bar()
            hooks = TimedAlone(self.space.task, self._hardly_any, holder, *loop, synchronised=self.synchronised)
            return self._trained(hooks)

    def joint(self, batch_size: int) -> Sequence[float]:
        """A step of all configurations together; each costs the same, so the middle one stands for all."""
        keep, offsets = self.masks(self._middle), dict[str, Tensor]()
        if self.setting.waves:  # blocks that have been tuned differ from the base model's, pruned ones do not
            linear = {p.weight for t in self.layout.targets if t.kind != "attention" for p in t.projections}
            offsets = {name: torch.zeros_like(self.parameters[name]) for name in keep if name in linear}
        variants = [[Variant(offsets, keep)]]
        with TemporaryDirectory() as folder:
            loop = self._loop(batch_size), 1, Path(folder), Bar()
            hooks = TimedTogether(self.space.task, self._hardly_any, variants, *loop, synchronised=self.synchronised)
            with hooks.masked(self.model):
                return self._trained(hooks)

    @cached_property
    def _middle(self) -> Node:
        return self.scheme.root(len(self.scheme.roots) // 2)

    @property
    def _hardly_any(self) -> Examples:
        """Validation examples of a loop that is timed: it must have some, and looks at none."""
        return self.train.first(1)

    def _loop(self, batch_size: int) -> ModelSettings:
        """Settings of a few steps that cost what the recipe's do."""
        whole, few = model_settings(self.space), {"learning_rate": 1e-6, "warmup": 0.0, "evaluations": 1}
        return replace(whole, steps=SAMPLE + 1, batch_size=batch_size, **few)  # type: ignore[arg-type]

    def _trained(self, hooks: TimedAlone | TimedTogether) -> Sequence[float]:
        """Seconds of each step but the first, without a teacher's passes."""
        train_whole(self.model, self.space.task, self.train, hooks)
        return hooks.each[1:]

    def answer(self, batch_size: int) -> Sequence[float]:
        """A pass of the teacher over the batch of a step."""
        settings = self._loop(batch_size)
        answers = self.space.answers(settings)
        assert answers is not None  # without a teacher nobody asks
        size, task, features = min(batch_size, len(self.train)), self.space.task, self.train.features
        lengths = input_lengths(features)

        def ask(step: int) -> None:
            if settings.group_by_length:
                chosen = grouped_by_length(lengths, size, seed=settings.seed, epoch=step)[0]
            else:
                chosen = batch_indices(len(features), size, seed=settings.seed, step=step)
            answers.ask(to_device_of(self.model, task.collate([features[i] for i in chosen])))

        return self.repeated(ask)

    # Files and models ------------------------------------------------------------------------------------

    def file(self) -> Sequence[float]:
        """Store a small block and read it."""
        return self._stored(1)

    def byte(self) -> Sequence[float]:
        """What a byte of a block adds to that."""
        pairs = zip(self._stored(WRITTEN), self._stored(1), strict=True)
        return [max(0.0, long - short) / WRITTEN for long, short in pairs]

    def _stored(self, size: int) -> Sequence[float]:
        folder = self.space.folder if self.space.folder.is_dir() else None
        with TemporaryDirectory(prefix=".time-", dir=folder) as place:
            library, data = Library(place), {"x": torch.zeros(size, dtype=torch.uint8)}
            return self.repeated(lambda step: library.get(library.put({"x": step}, data, {}, stats={})))

    def compose(self) -> Sequence[float]:
        """Load the model; the blocks that are then put on it take little beside that."""
        return [self.took(self.space.fresh_model)]

    def sweep(self) -> Sequence[float]:
        """A sweep of the middle configuration over a part of the sample, and what one over all of it takes.

        Solves take the same time whatever the sample; two parts tell what an example adds.
        """
        size = min(self.space.recipe.calibration_size, len(self.train))
        quarter, half = max(1, size // 4), max(2, size // 2)
        short, long = self._swept(quarter), self._swept(half)
        return [long + max(0.0, long - short) * (size - half) / (half - quarter)]

    def _swept(self, size: int) -> float:
        model, keep, r = self.space.fresh_model(), self.masks(self._middle), self.space.recipe
        masks.apply(dict(model.named_parameters()), keep)
        masked, data, damping = (model, self.model), (self.space.task, self.train), r.block.damping
        how: dict[str, Any] = {"size": size, "seed": r.seed, "damping": damping, "metric": r.metric}
        return sweep(*masked, self.layout, keep, *data, **how).seconds
