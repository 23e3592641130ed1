"""Block-level fine-tuning in this process: blocks that a library lacks are opened, tuned and stored.

A block starts from its children's tuned weights and learns to give the base model's output on the base model's
inputs; how is the trainer's business. Which blocks there are, and their addresses, say the waves. A block's bytes
depend on its address alone, whatever runs beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from ...calibration.teacher import Teacher
from ...progress import SILENT, Progress
from ...scheme.graph import Node
from ...scheme.layout import Block
from ...tensors.capture import owned
from .trainer import BlockSettings, BlockTrainer, Job, Start, Tuned
from .waves import BlockTuning, Missing, Waves, run_waves

if TYPE_CHECKING:
    from torch import Tensor


class BlockTuner:
    """Tunes blocks of one scheme with one teacher.

    Args:
        teacher: the base model (it is not changed), with the data that blocks are tuned and measured on.
        waves: what there is to tune, from which library into which.
        trainer: how a block learns, with these ``settings``.
    """

    def __init__(
        self,
        teacher: Teacher,
        waves: Waves,
        trainer: type[BlockTrainer],
        settings: BlockSettings,
        progress: Progress = SILENT,
    ) -> None:
        self.teacher, self.waves, self.progress = teacher, waves, progress
        self.parameters, self.layout = dict(teacher.model.named_parameters()), teacher.layout
        self.trainer, self.settings = trainer, settings
        self.device = next(iter(self.parameters.values())).device

    def run(self) -> BlockTuning:
        """Tune all that the library lacks, wave by wave; each block's history is kept beside it."""
        return run_waves(self.waves, self.tune)

    def tune(self, missing: Sequence[Missing], label: str) -> int:
        """Tune blocks of one wave, and store each as soon as it is done; returns the teacher's passes."""
        before, by_name = self.teacher.passes, {one.node.hash: one for one in missing}
        jobs = [self._job(one.node) for one in missing]
        for job, tuned in self.trainer.tune(jobs, self.teacher, self.settings, label=label, progress=self.progress):
            block = by_name[job.name]
            stats = {"seconds": tuned.seconds, "rows": _rows(block.node, tuned)}
            self.waves.tuned.put(block.lineage, tuned.weights, job.masks, stats=stats)
            job.close()
        return self.teacher.passes - before

    def _job(self, node: Node) -> Job:
        block, upstream = node.block(self.layout), self.waves.upstream(node)
        return Job(node.hash, block, partial(self._start, node, block), upstream, node.units_before(self.layout))

    def _start(self, node: Node, block: Block) -> Start:
        weights: dict[str, Tensor] = {name: self.parameters[name] for name in owned(self.parameters, block)}
        masks: dict[str, Tensor] = {}
        for library, address in self.waves.below(node):
            artefact = library.get(address)
            weights |= {name: value.to(self.device) for name, value in artefact.weights.items()}
            masks |= artefact.masks
        return Start(weights, masks)


def _rows(node: Node, tuned: Tuned) -> list[dict[str, Any]]:
    """Lines of ``stats/block.csv``; losses are relative errors, seconds are this block's share."""
    rates = " ".join(f"{rate:g}" for rate in node.rates.values())
    place = {"level": node.level, "path": node.path, "rates": rates, "node": node.hash}
    return [place | asdict(look) for look in tuned.looks]
