"""Block-level fine-tuning: every block of the scheme once, wave by wave, bottom-up, into a library.

A block starts from its children's tuned weights and learns to give the base model's output on the base
model's inputs. How is the trainer's business; here blocks are opened, addressed and stored. A block's bytes
depend on its address alone, whatever runs beside it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ...calibration.sample import Calibration
from ...calibration.teacher import Teacher
from ...library.store import Library
from ...progress import SILENT, Progress
from ...scheme.graph import Node, Scheme
from ...scheme.layout import Block, Layout
from ...tasks.task import Examples, Task
from ...tensors.capture import owned
from ...tensors.masks import live_columns
from .trainer import BlockSettings, BlockTrainer, Job, Tuned
from .waves import BlockTuning, Missing, Waves

if TYPE_CHECKING:
    from torch import Tensor, nn


class BlockTuner:
    """Tunes what waves lack, with one teacher; :func:`tune_blocks` is the door."""

    def __init__(
        self,
        teacher: Teacher,
        waves: Waves,
        trainer: type[BlockTrainer],
        settings: BlockSettings,
        progress: Progress,
    ) -> None:
        self.teacher, self.waves, self.progress = teacher, waves, progress
        self.model, self.layout = teacher.model, teacher.layout
        self.trainer, self.settings = trainer, settings
        self.device = next(teacher.model.parameters()).device
        self.result = BlockTuning(waves.addresses)

    def run(self, only: Mapping[str, str] | None = None) -> BlockTuning:
        """Tune all waves, or of each ``only`` these (:meth:`composer.training.blocks.waves.Waves.run`)."""
        began, before = time.perf_counter(), self.teacher.passes
        try:
            self.waves.run(self._tune, only)
        finally:
            self.result.teacher_passes = self.teacher.passes - before
            self.result.seconds = time.perf_counter() - began
        return self.result

    def _tune(self, missing: Sequence[Missing], label: str) -> None:
        by_name = {one.node.hash: one for one in missing}
        jobs = [self._job(one.node) for one in missing]
        done = self.trainer.tune(jobs, self.teacher, self.settings, label=label, progress=self.progress)
        for job, tuned in done:
            one = by_name[job.name]
            stats = {"seconds": tuned.seconds, "rows": _rows(one.node, tuned)}
            self.waves.tuned.put(one.lineage, tuned.weights, job.masks, stats=stats)
            self.result.tuned += 1

    def _job(self, node: Node) -> Job:
        block = self.layout.block(node.level, node.path)  # type: ignore[arg-type]
        parameters = dict(self.model.named_parameters())
        weights: dict[str, Tensor] = {name: parameters[name] for name in owned(self.model, block)}
        masks: dict[str, Tensor] = {}
        for library, address in self.waves.below(node):
            artefact = library.get(address)
            weights |= {name: value.to(self.device) for name, value in artefact.weights.items()}
            masks |= artefact.masks
        return Job(node.hash, block, weights, masks, self.waves.upstream(node), self._live(node, block, masks))

    def _live(self, node: Node, block: Block, masks: Mapping[str, Tensor]) -> Tensor | None:
        """See :attr:`Job.live`; None where other weights are pruned before the last projection."""
        if block.level == "layer":
            return None
        before = [self.layout.target(path) for path in block.targets[:-1]]
        if any(target.kind != "attention" for target in before):
            return None
        if any(t.path in node.rates and node.shape(t).kind != "head" for t in before):
            return None  # kept heads would not be what they were
        return live_columns(before[0] if before else None, self.layout.target(block.targets[-1]), masks)


def _rows(node: Node, tuned: Tuned) -> list[dict[str, Any]]:
    """Lines of ``stats/block.csv``; losses are relative errors, seconds are this block's share."""
    rates = " ".join(f"{rate:g}" for rate in node.rates.values())
    place = {"level": node.level, "path": node.path, "rates": rates, "node": node.hash}
    return [place | asdict(look) for look in tuned.looks]


def tune_blocks(
    model: nn.Module,
    layout: Layout,
    scheme: Scheme,
    *,
    trainer: type[BlockTrainer],
    settings: BlockSettings,
    task: Task,
    train: Examples,
    valid: Examples,
    pruned: Library,
    tuned: Library,
    addresses: Mapping[str, str],
    calibration: Calibration | None = None,
    progress: Progress = SILENT,
    only: Mapping[str, str] | None = None,
) -> BlockTuning:
    """Tune every block of ``scheme`` that ``tuned`` lacks.

    Args:
        model: the base model (also the teacher), in evaluation mode; it is not changed.
        addresses: node hash -> address in ``pruned``, of the leaves and of sublayers with masks of their own.
        calibration: the base model's moments, where somebody has gathered them already.
        only: node hash -> address of the blocks to tune, where other processes tune the rest.

    Returns:
        Addresses of all nodes of the tuned levels and the work spent; each block's history is kept beside it
        (:meth:`composer.library.store.Library.stats`).
    """
    sample = calibration or Calibration(
        model, task, train, layout, size=settings.calibration_size, seed=settings.seed, progress=progress
    )
    teacher = Teacher(model, layout, task, train, valid, sample)
    data = {name: examples.digest for name, examples in teacher.examples.items()}
    waves = Waves(scheme, layout, (pruned, tuned), addresses, settings=settings.lineage(trainer.fields), data=data)
    return BlockTuner(teacher, waves, trainer, settings, progress).run(only)


def head(examples: Examples, size: int) -> Examples:
    """The first ``size`` examples, with a digest of their own."""
    if size >= len(examples):
        return examples
    return replace(
        examples,
        features=examples.features[:size],
        references=examples.references[:size],
        digest=f"{examples.digest}[:{size}]",
    )
