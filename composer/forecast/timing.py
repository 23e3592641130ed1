"""What the pieces of work take on this machine: each kind tried once, through the real code."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from .. import masks
from ..criteria import CRITERIA
from ..criteria.criterion import MovingCriterion
from ..cutting import weight_of
from ..gram import Gram
from ..layout import Block, End
from ..library import Library
from ..progress import SILENT, Progress
from ..stages.tune_blocks import head
from ..tasks.evaluation import mean_loss
from ..trainers import TRAINERS
from ..trainers.moments import Moments, kept, matrix
from ..trainers.trainer import BlockSettings
from ..trainers.whole import ModelSettings, train_whole
from .bench import SAMPLE, Bench, StopWatch
from .workload import Key, Work

LONG = 5.0
"""A piece that would take more seconds than this is not tried: the largest that was tried is scaled up."""
SINGLE, SHORT = ("select", "probe", "show"), 0.3
"""Units that look once, and the seconds up to which they do it again."""
WRITTEN = 8 * 2**20
"""Bytes of the file that is written to see how fast that goes."""


def measure(pieces: Pieces, works: Iterable[Work], progress: Progress = SILENT) -> dict[Key, float]:
    """Seconds of one piece of each unit and kind (:attr:`Work.of`).

    Of each unit the least comes first, so that the others can be scaled from it.
    """
    kinds = {(work.unit, work.of): work for work in works}
    found: dict[Key, float] = {}
    largest: dict[str, tuple[float, float]] = {}
    with progress.bar("time a few batches", len(kinds)) as bar:
        for key, work in sorted(kinds.items(), key=lambda item: (item[0][0], item[1].operations)):
            tried, seconds = largest.get(work.unit, (work.operations, 0.0))
            scaled = seconds * work.operations / tried
            if scaled > LONG:
                found[key] = scaled
            else:
                found[key] = _tried(pieces, work)
                largest[work.unit] = work.operations, found[key]
            bar.advance(work.unit)
    return found


def _tried(pieces: Pieces, work: Work) -> float:
    """Seconds of one piece; what is over in no time is tried again, for a hiccup would be taken for all pieces."""
    seconds: list[float] = []
    while not seconds or (work.unit in SINGLE and len(seconds) < SAMPLE and sum(seconds) < SHORT):
        seconds.append(getattr(pieces, work.unit)(*work.of))
    return median(seconds)


class Pieces(Bench):
    """One method for each unit of :class:`.workload.Work`: takes its ``of``, does one piece, returns seconds."""

    # The calibration sample ------------------------------------------------------------------------------

    def gather(self) -> float:
        """A pass over the whole sample that gathers the base model's moments."""
        return self._moments[0]

    @cached_property
    def _moments(self) -> tuple[float, dict[str, Gram]]:
        """Seconds of a pass over the whole sample with all moments, and the moments of the few batches."""
        _ = self.sample.inputs
        found: dict[str, Gram] = {}
        layout, before = self.sample.layout, self.sample.passes
        wants = {p.path: [p.path] for target in layout.targets for p in target.projections}

        def keep() -> None:
            found.update({path: m[path] for path, m in self.sample.moments(wants) if path in self._read})

        seconds = self.took(keep)
        return self.scale * seconds / (self.sample.passes - before), found

    @cached_property
    def _read(self) -> set[str]:
        """Projections whose moments are looked at again: those of what stands for its kind."""
        nodes = (self.scheme.nodes[self.setting.like(node)] for node in self.setting.tuned_nodes())
        ends = {end.last.path for node in nodes for end in self.layout.ends(self.block(node))}
        for path in map(self.setting.target_like, self.scheme.modules):
            target = self.layout.target(path)
            out = [self.layout.out_projection(path)] if target.kind == "attention" else []
            ends |= {p.path for p in (*target.projections, *out)}
        return ends

    def show(self) -> float:
        """A pass up to the last sublayer; the very first batch still runs to the model's end."""
        batches = list(self.sample.batches())
        with self.lecturer.watching(list(self.layout.at("sublayer")) or list(self.layout.blocks)):
            self.lecturer.show(batches[-1])
            return self.scale * sum(self.took(partial(self.lecturer.show, batch)) for batch in batches)

    def probe(self, name: str, k: int) -> float:
        """One variant's moments of what its ``k``-th sublayer's last projection reads, over the whole sample."""
        node = self.scheme.nodes[name]
        block, weights = self.block(node), self.weights(node)
        end, seconds = self.layout.ends(block)[k], []
        moments = Moments(end.last, matrix(weights, end.last))
        inside = [b for b in self.layout.at("sublayer") if set(b.targets) <= set(block.targets)]
        with self.lecturer.watching([block, *inside]), torch.no_grad():
            for batch in self.sample.batches():
                self.lecturer.show(batch)
                seconds.append(self.took(lambda: self._look_inside(block, end, weights, moments)))
        return self.scale * sum(seconds)

    def _look_inside(self, block: Block, end: End, weights: dict[str, Tensor], moments: Moments) -> None:
        lesson = self.lecturer.lesson(block)
        inputs, stream = lesson.probe(weights, end)
        moments.add(inputs, self.lecturer.stream(end, block) - stream, lesson.wanted)

    # Closed forms ----------------------------------------------------------------------------------------

    def select(self, path: str) -> float:
        """The criterion's scores of one target."""
        criterion, target = CRITERIA.get(self.space.recipe.criterion)(), self.layout.target(path)
        if not criterion.needs <= {"gram"} or isinstance(criterion, MovingCriterion):
            criterion = CRITERIA.get("wanda")()  # one look at the moments, about what one look at gradients takes
        stats: dict[str, Any] = {}
        if criterion.needs:
            stats["gram"] = [self._moments[1][p.path] for p in target.projections]
            if target.kind == "attention":
                out = self.layout.out_projection(path)
                stats["out"] = out.of(self.parameters[out.weight].detach()), self._moments[1][out.path]
        weights = [weight_of(p, self.parameters) for p in target.projections]
        return self.took(lambda: criterion.score(target, weights, stats))

    def solve(self, name: str, k: int) -> float:
        """One solve, where others have solved for the same inputs before."""
        return self._solved(name, k)[1]

    def prepare(self, name: str, k: int) -> float:
        """What the first solve for these inputs takes in addition."""
        first, second = self._solved(name, k)
        return max(0.0, first - second)

    def _solved(self, name: str, k: int) -> tuple[float, float]:
        """Seconds of a first and of a second solve, on the moments of the few batches."""
        if (name, k) not in self._pairs:
            node = self.scheme.nodes[name]
            last = self.layout.ends(self.block(node))[k].last
            gram = self._moments[1].get(last.path)
            if gram is None:  # nothing is pruned there, but the layer's other sublayers are
                gram = Gram(torch.eye(last.in_features + last.bias), 1, last.bias)
            start, live = matrix(self.weights(node), last), torch.ones(last.in_features, dtype=torch.bool)
            keep = kept(self.masks(node), last, start.device)
            made: list[Moments] = []

            def solve() -> None:
                moments = made.pop() if made else Moments.of(gram, last, self.parameters, live)
                solved = moments.solve(start, keep, self.space.recipe.block.damping)
                moments.error(start), moments.error(solved)
                made.append(moments)

            solve()  # what is only done once in a process
            made.clear()
            self._pairs[name, k] = self.took(solve), self.took(solve)
        return self._pairs[name, k]

    @cached_property
    def _pairs(self) -> dict[tuple[str, int], tuple[float, float]]:
        return {}

    # Steps -----------------------------------------------------------------------------------------------

    def teach(self) -> float:
        """A pass over one batch of blocks."""
        with self.lecturer.watching(list(self.layout.at("sublayer")) or list(self.layout.blocks)):
            return median(self.repeated(lambda step: self.lecturer.teach("train", self.batch(step))))

    def learn(self, name: str) -> float:
        """One block's step."""
        return self._lesson(name, "step")

    def look(self, name: str) -> float:
        """One block's validation on one batch."""
        return self._lesson(name, "error")

    def _lesson(self, name: str, what: str) -> float:
        node = self.scheme.nodes[name]
        block = self.block(node)
        trainer: Any = TRAINERS.get(self.space.recipe.trainer)
        r = self.space.recipe.block
        settings = BlockSettings(self.space.recipe.trainer, r.steps, r.batch_size, r.learning_rate, r.patience, 0)
        pupil = trainer.start(self.weights(node), self.masks(node), settings)
        with self.lecturer.watching([block]):
            self.lecturer.teach("train", self.batch(0))

            def once(_: int) -> None:
                lesson = self.lecturer.lesson(block)
                getattr(pupil, what)(lesson, lesson.wanted)

            return median(self.repeated(once))

    def step(self, batch_size: int) -> float:
        """A step of the middle configuration, by the real training loop."""
        r, whole = self.space.recipe, self.space.recipe.finetune
        root = self.scheme.root(len(self.scheme.roots) // 2)
        keep = self.masks(root)
        with TemporaryDirectory() as folder:
            settings = ModelSettings(
                SAMPLE + 1, batch_size, 1e-6, 0.0, whole.weight_decay, whole.clip, 1, r.seed, r.precision
            )
            book = StopWatch(settings, Path(folder), keep, self.synchronised)
            with masks.held(self.model, keep):
                train_whole(self.model, self.space.task, self.train, book)
        return median(book.each[1:])

    def validate(self) -> float:
        """The whole model's validation loss, per example."""
        some = head(self.space.examples("valid"), 128)
        return self.took(lambda: mean_loss(self.model, self.space.task, some)) / len(some)

    # Files -----------------------------------------------------------------------------------------------

    def file(self) -> float:
        """Store a small block and read it."""
        return self._stored(1)

    def byte(self) -> float:
        """What a byte of a block adds to that."""
        return max(0.0, self._stored(WRITTEN) - self._stored(1)) / WRITTEN

    def _stored(self, size: int) -> float:
        folder = self.space.folder if self.space.folder.is_dir() else None
        with TemporaryDirectory(prefix=".time-", dir=folder) as place:
            library, data = Library(place), {"x": torch.zeros(size, dtype=torch.uint8)}
            return median(self.repeated(lambda step: library.get(library.put({"x": step}, data, {}, stats={}))))

    def compose(self) -> float:
        """Load the model; the blocks that are then put on it take little beside that."""
        return self.took(self.space.fresh_model)
