"""What is needed to try pieces of work: the base model, a few batches of the calibration sample, blocks with masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...calibration.sample import Calibration
from ...calibration.teacher import Teacher
from ...pruning.criteria import CRITERIA
from ...pruning.cut import weight_of
from ...scheme.graph import Node
from ...scheme.layout import Block
from ...tensors import masks
from ...tensors.batches import batch_indices
from ...tensors.capture import owned
from ...tensors.ranking import keep_by_rank
from ...timing import clock
from ...workspace import Workspace
from ..workload import Setting

SAMPLE = 3
"""Batches that are looked at, and times that something is repeated."""


class TimedModel:
    """The base model of a workspace, and what can be tried on it.

    ``scale`` is how much larger the calibration sample is than its few batches, in tokens.
    """

    def __init__(self, space: Workspace, setting: Setting) -> None:
        self.space, self.setting = space, setting
        self.scheme, self.layout = setting.scheme, setting.layout
        self.train = space.examples("train")
        self.model = space.fresh_model()
        self.parameters = dict(self.model.named_parameters())
        r, layout = space.recipe, self.layout.only(self.scheme.modules)
        whole = Calibration(
            self.model,
            space.task,
            self.train,
            layout,
            size=r.calibration_size,
            seed=r.seed,
            like=space.lengths_like,
            memory=r.memory,
            metric=r.metric,
            label_seed=r.seed,
        )
        # Batches are sorted by length: a few at equal distances, from the middle of each part, stand for all.
        chosen = whole.indices[len(whole.indices) // (2 * SAMPLE) :: -(-len(whole.indices) // SAMPLE)]
        self._drawn = [i for batch in chosen for i in batch]
        self._looked_at = layout
        self.sample = self.few()
        self.scale = _tokens(whole) / _tokens(self.sample)
        valid = space.examples("valid").first(r.block.valid_size)
        self.teacher, self.whole_teacher = (
            Teacher(self.model, self.layout, space.task, self.train, valid, sample) for sample in (self.sample, whole)
        )

    def few(self) -> Calibration:
        """A few batches of the calibration sample, with none of their moments gathered yet."""
        r = self.space.recipe
        how: dict[str, Any] = {"memory": r.memory, "metric": r.metric, "label_seed": r.seed}
        return Calibration(self.model, self.space.task, self.train, self._looked_at, indices=self._drawn, **how)

    def batch(self, step: int) -> list[int]:
        """Training examples of a batch of blocks."""
        r = self.space.recipe
        return batch_indices(len(self.train), r.block.batch_size, seed=r.seed, step=step)

    def block(self, node: Node) -> Block:
        """The node's block."""
        return node.block(self.layout)

    def weights(self, node: Node) -> dict[str, Tensor]:
        """All parameters of the node's block, pruned."""
        keep = self.masks(node)
        weights = {name: self.parameters[name].detach().clone() for name in owned(self.parameters, self.block(node))}
        masks.apply(weights, keep)
        return weights

    def masks(self, node: Node) -> dict[str, Tensor]:
        """Of the node's rates, by magnitude: which weights go does not matter here, only how many."""
        l1 = CRITERIA.get("l1")()
        keep: dict[str, Tensor] = {}
        for path, rate in node.rates.items():
            target = self.layout.target(path)
            scores = l1.score(target, [weight_of(p, self.parameters) for p in target.projections], {})
            keep |= masks.expand(target, keep_by_rank(scores, rate))
        return keep

    def repeated(self, work: Callable[[int], Any]) -> Sequence[float]:
        """Seconds of each of a few times, the first left out."""
        return [self.took(partial(work, step)) for step in range(SAMPLE + 1)][1:]

    def took(self, work: Callable[[], Any]) -> float:
        """Seconds of ``work``."""
        return clock.took(work, self._device).wall

    def synchronised(self) -> None:
        """Wait until the device has done its work."""
        clock.synchronise(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def _tokens(sample: Calibration) -> int:
    """Tokens of all batches, padding included."""
    return sum(tensor.numel() for batch in sample.batches() for tensor in batch.values())
