"""Block-level fine-tuning: every block of the scheme once, wave by wave, bottom-up, into a library.

A block starts from its children's tuned weights and learns to give the base model's output on the base
model's inputs. How is the trainer's business; here blocks are opened, addressed and stored. A block's bytes
depend on its address alone, whatever runs beside it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..calibration import Calibration
from ..capture import owned
from ..jsonfile import digest_of
from ..layout import Block, Layout
from ..library import Library, address_of
from ..masks import live_columns
from ..progress import SILENT, Progress
from ..scheme import Node, Scheme
from ..tasks.task import Examples, Task
from ..teacher import Teacher
from ..trainers.trainer import BlockSettings, BlockTrainer, Job, Tuned

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class BlockTuning:
    """What block-level fine-tuning did: addresses of all nodes of the tuned levels, and the work spent now."""

    addresses: dict[str, str]
    teacher_passes: int = 0
    seconds: float = 0.0
    tuned: int = 0


class BlockTuner:
    """Runs the waves of one scheme; :func:`tune_blocks` is the door."""

    def __init__(
        self,
        teacher: Teacher,
        scheme: Scheme,
        trainer: type[BlockTrainer],
        settings: BlockSettings,
        libraries: tuple[Library, Library],
        progress: Progress,
    ) -> None:
        self.teacher, self.scheme, self.progress = teacher, scheme, progress
        self.model, self.layout = teacher.model, teacher.layout
        self.trainer, self.settings = trainer, settings
        self.pruned, self.tuned = libraries
        self.device = next(teacher.model.parameters()).device
        self.result = BlockTuning({})

    def run(self, pruned: Mapping[str, str]) -> BlockTuning:
        """Tune all waves; ``pruned`` maps node hashes to addresses in the pruned library."""
        began, before = time.perf_counter(), self.teacher.passes
        waves = self.scheme.waves()
        try:
            for number, wave in enumerate(waves, 1):
                opened = self._open(wave, pruned)
                if opened:
                    label = f"wave {number}/{len(waves)}: {len(opened)} {wave[0].level} blocks"
                    self._tune(opened, label)
        finally:
            self.result.teacher_passes = self.teacher.passes - before
            self.result.seconds = time.perf_counter() - began
        return self.result

    def _tune(self, opened: Sequence[tuple[Node, dict[str, Any], Job]], label: str) -> None:
        lineages = {job.name: (node, lineage) for node, lineage, job in opened}
        jobs = [job for _, _, job in opened]
        done = self.trainer.tune(jobs, self.teacher, self.settings, label=label, progress=self.progress)
        for job, tuned in done:
            node, lineage = lineages[job.name]
            stats = {"seconds": tuned.seconds, "rows": _rows(node, tuned)}
            self.tuned.put(lineage, tuned.weights, job.masks, stats=stats)
            self.result.tuned += 1

    def _open(self, wave: Sequence[Node], pruned: Mapping[str, str]) -> list[tuple[Node, dict[str, Any], Job]]:
        """Jobs for the blocks that are not stored yet; heads and neurons alone are stored as they are."""
        opened = []
        for node in wave:
            if node.level == "module" and node.shape(target := self.layout.target(node.path)).whole(target):
                # On base inputs the kept heads' q, k and v (the kept neurons) are exact already: nothing to tune.
                self.result.addresses[node.hash] = self._copy(pruned[node.hash])
                continue
            lineage = self._lineage(node, pruned)
            address = self.result.addresses[node.hash] = address_of(lineage)
            if address in self.tuned:
                self.tuned.verify(address)
            else:
                opened.append((node, lineage, self._job(node, pruned)))
        return opened

    def _lineage(self, node: Node, pruned: Mapping[str, str]) -> dict[str, Any]:
        return {
            "stage": "tuned",
            "node": node.hash,
            "base": self.scheme.fingerprint,
            "start": [address for _, address in self._below(node, pruned)],
            "settings": self.settings.lineage(self.trainer.fields),
            "data": {name: examples.digest for name, examples in self.teacher.examples.items()},
        }

    def _below(self, node: Node, pruned: Mapping[str, str]) -> list[tuple[Library, str]]:
        """Where the block starts: its tuned children, else what is pruned below them; then its own pruned masks."""
        found = []
        for child in node.children:
            if child in self.result.addresses:
                found.append((self.tuned, self.result.addresses[child]))
            else:
                found += self._below(self.scheme.nodes[child], pruned)
        if node.hash in pruned:
            found.append((self.pruned, pruned[node.hash]))
        return found

    def _job(self, node: Node, pruned: Mapping[str, str]) -> Job:
        block = self.layout.block(node.level, node.path)  # type: ignore[arg-type]
        parameters = dict(self.model.named_parameters())
        weights: dict[str, Tensor] = {name: parameters[name] for name in owned(self.model, block)}
        masks: dict[str, Tensor] = {}
        below = self._below(node, pruned)
        for library, address in below:
            artefact = library.get(address)
            weights |= {name: value.to(self.device) for name, value in artefact.weights.items()}
            masks |= artefact.masks
        return Job(node.hash, block, weights, masks, self._upstream(node, pruned), self._live(node, block, masks))

    def _upstream(self, node: Node, pruned: Mapping[str, str]) -> str:
        """What decides the inputs of the block's last projection: all below it but the target that it is."""
        last = self.layout.block(node.level, node.path).targets[-1]  # type: ignore[arg-type]
        before = [child for child in node.children if last not in self.scheme.nodes[child].rates]
        found = [
            [self.result.addresses[child]]
            if child in self.result.addresses
            else [address for _, address in self._below(self.scheme.nodes[child], pruned)]
            for child in before
        ]
        return digest_of(found)

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

    def _copy(self, address: str) -> str:
        if address in self.tuned:
            self.tuned.verify(address)
        else:
            artefact = self.pruned.get(address)
            self.tuned.put(artefact.lineage, artefact.weights, artefact.masks)
        return address


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
) -> BlockTuning:
    """Tune every block of ``scheme`` that ``tuned`` lacks.

    Args:
        model: the base model (also the teacher), in evaluation mode; it is not changed.
        addresses: node hash -> address in ``pruned``, of the leaves and of sublayers with masks of their own.
        calibration: the base model's moments, where somebody has gathered them already.

    Returns:
        Addresses of all nodes of the tuned levels and the work spent; each block's history is kept beside it
        (:meth:`composer.library.Library.stats`).
    """
    sample = calibration or Calibration(
        model, task, train, layout, size=settings.calibration_size, seed=settings.seed, progress=progress
    )
    teacher = Teacher(model, layout, task, train, valid, sample)
    return BlockTuner(teacher, scheme, trainer, settings, (pruned, tuned), progress).run(addresses)


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
