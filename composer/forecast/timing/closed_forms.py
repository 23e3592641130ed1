"""Trying what closed forms are made of: passes over the calibration sample, selections, solves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ...calibration.gram import Gram
from ...pruning.criteria import CRITERIA
from ...pruning.criteria.choice import criterion_of
from ...pruning.criteria.criterion import Criterion, moves_weights
from ...pruning.cut import Cut
from ...pruning.statistics import inputs_of, statistics_of
from ...scheme.layout import Block, End, Target
from ...scheme.shapes import Shape
from ...training.blocks.moments import BaseMoments, RegressionSums, kept, matrix
from .timed_model import TimedModel

LEAST = 2
"""How often each kind of work is tried, at least."""


class ClosedForms(TimedModel):
    """One method for each unit: takes its ``of``, returns the seconds of one try or more."""

    # The calibration sample ------------------------------------------------------------------------------

    def gather(self) -> Sequence[float]:
        """A pass over the whole sample that gathers the base model's moments."""
        return [self._gathered()[0]]

    def _gathered(self) -> tuple[float, dict[str, Gram]]:
        """Seconds of a pass over the whole sample with all moments, and the moments of the few batches."""
        sample, grams = self.few(), dict[str, Gram]()
        before, _ = sample.passes, sample.inputs
        wants = {p.path: [p.path] for target in sample.layout.targets for p in target.projections}

        def keep() -> None:
            grams.update({path: m[path] for path, m in sample.moments(wants) if path in self._read})

        seconds = self.took(keep)
        return self.scale * seconds / (sample.passes - before), grams

    @cached_property
    def _moments(self) -> dict[str, Gram]:
        return self._gathered()[1]

    @cached_property
    def _read(self) -> set[str]:
        """Projections whose moments are looked at again: those of what stands for its kind."""
        nodes = (self.scheme.nodes[self.setting.like(node)] for node in self.setting.tuned_nodes())
        ends = {end.last.path for node in nodes for end in self.layout.ends(self.block(node))}
        for path in map(self.setting.target_like, self.scheme.modules):
            ends |= {*inputs_of(self.layout, path, self._way(path)[1])}
        return ends

    def show(self) -> Sequence[float]:
        """A pass up to the last sublayer; the very first batch still runs to the model's end."""
        batches = list(self.sample.batches())
        with self.teacher.watching(list(self.layout.at("sublayer")) or list(self.layout.blocks)):
            self.teacher.show(batches[-1])
            return [self.scale * sum(self.took(partial(self.teacher.show, batch)) for batch in batches)]

    def probe(self, name: str, k: int) -> Sequence[float]:
        """One variant's moments of what its ``k``-th sublayer's last projection reads, over the whole sample."""
        node = self.scheme.nodes[name]
        block, weights = self.block(node), self.weights(node)
        end, seconds = self.layout.ends(block)[k], []
        moments = RegressionSums(end.last, matrix(weights, end.last))
        inside = [b for b in self.layout.at("sublayer") if set(b.targets) <= set(block.targets)]
        with self.teacher.watching([block, *inside]), torch.no_grad():
            for batch in self.sample.batches():
                self.teacher.show(batch)
                seconds.append(self.took(lambda: self._look_inside(block, end, weights, moments)))
        return [self.scale * sum(seconds)]

    def _look_inside(self, block: Block, end: End, weights: dict[str, Tensor], moments: RegressionSums) -> None:
        lesson = self.teacher.lesson(block)
        inputs, stream = lesson.probe(weights, end)
        moments.add(inputs, self.teacher.stream(end, block) - stream, lesson.wanted)

    # Closed forms ----------------------------------------------------------------------------------------

    def select(self, path: str) -> Sequence[float]:
        """The scores of one target, by the criterion and in the shape that a variant of it has."""
        criterion, shape = self._way(path)

        def statistics(part: Target) -> dict[str, Any]:
            return statistics_of(self.layout, part, self.parameters, self._moments, None, self.space.recipe.seed)

        return [self.took(lambda: Cut(self.layout, path, shape, criterion, self.parameters, statistics).scores)]

    def _way(self, path: str) -> tuple[Criterion, Shape]:
        """Criterion and shape of the scheme's first variant of a target.

        What cannot be tried on moments alone (gradients) and what has no scores is taken for wanda: one look at the
        moments takes about what one look at gradients does.
        """
        node = next(node for node in self.scheme.at("module") if node.path == path)
        criterion = criterion_of(node, path, CRITERIA.get(self.space.recipe.criterion)())
        if not criterion.needs <= {"gram", "seed"} or moves_weights(criterion):
            return CRITERIA.get("wanda")(), Shape("unstructured")
        return criterion, node.shape(self.layout.target(path))

    def solve(self, name: str, k: int) -> Sequence[float]:
        """One solve, where others have solved for the same inputs before."""
        return [second for _, second in self._solved(name, k)]

    def prepare(self, name: str, k: int) -> Sequence[float]:
        """What the first solve for these inputs takes in addition."""
        return [max(0.0, first - second) for first, second in self._solved(name, k)]

    def _solved(self, name: str, k: int) -> Sequence[tuple[float, float]]:
        """Seconds of a first and of a second solve, on the moments of the few batches, each time anew."""
        if (name, k) not in self._pairs:
            node = self.scheme.nodes[name]
            last = self.layout.ends(self.block(node))[k].last
            gram = self._moments.get(last.path)
            if gram is None:  # nothing is pruned there, but the layer's other sublayers are
                gram = Gram(torch.eye(last.in_features + last.bias), 1, last.bias)
            start, live = matrix(self.weights(node), last), torch.ones(last.in_features, dtype=torch.bool)
            keep = kept(self.masks(node), last, start.device)
            prepared: list[RegressionSums] = []  # for these inputs: what the first solve leaves to the second

            def solve() -> None:
                moments = prepared.pop() if prepared else BaseMoments(gram, last, self.parameters).cut(live)
                solved = moments.solve(start, keep, self.space.recipe.block.damping)
                moments.error(start), moments.error(solved)
                prepared.append(moments)

            def both() -> tuple[float, float]:
                prepared.clear()
                return self.took(solve), self.took(solve)

            solve()  # what is only done once in a process
            self._pairs[name, k] = [both() for _ in range(LEAST)]
        return self._pairs[name, k]

    @cached_property
    def _pairs(self) -> dict[tuple[str, int], Sequence[tuple[float, float]]]:
        return {}
