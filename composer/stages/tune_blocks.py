"""Block-level fine-tuning: every block of the scheme once, wave by wave, bottom-up.

A block starts from its children's tuned weights and learns to give the base model's output on the base
model's inputs. One teacher pass per batch serves every block of a wave. A block's bytes depend on its
address alone: own optimiser, own clipping, batches by (seed, step), whatever runs beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ..batches import batch_indices, in_order
from ..capture import Arguments, Recording, owned, recording, run_block
from ..layout import Block, Layout
from ..library import Library, address_of
from ..progress import SILENT, Progress
from ..running import to_device_of
from ..scheme import Node, Scheme
from ..tasks.task import Examples, Task
from ..trainers.trainer import BlockSettings, BlockTrainer

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class BlockRow:
    """One line of ``stats/block.csv``; losses are relative errors, seconds are this block's share."""

    level: str
    path: str
    rates: str
    node: str
    step: int
    epoch: float
    train_loss: float | None
    valid_loss: float | None
    train_seconds: float
    valid_seconds: float


@dataclass
class BlockTuning:
    """What block-level fine-tuning did: addresses of all nodes of the tuned levels, and the work spent now."""

    addresses: dict[str, str]
    teacher_passes: int = 0
    seconds: float = 0.0
    tuned: int = 0


@dataclass
class _Job:
    """A block that is being tuned."""

    node: Node
    block: Block
    lineage: dict[str, Any]
    masks: dict[str, Tensor]
    trainer: BlockTrainer
    best: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0
    active: bool = True
    train_seconds: float = 0.0
    valid_seconds: float = 0.0
    errors: list[float] = field(default_factory=list)
    rows: list[BlockRow] = field(default_factory=list)


@dataclass(frozen=True)
class _Lesson:
    """One batch for one block; see :class:`composer.trainers.trainer.Lesson`."""

    modules: Mapping[str, nn.Module]
    block: Block
    arguments: Arguments
    tokens: Tensor

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return run_block(self.modules, self.block, parameters, self.arguments)[self.tokens]

    def probe(self, parameters: Mapping[str, Tensor], path: str) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        handle = self.modules[path].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            output = self(parameters)
        finally:
            handle.remove()
        return seen[-1][self.tokens], output


class BlockTuner:
    """Runs the waves of one scheme; :func:`tune_blocks` is the door."""

    def __init__(
        self,
        model: nn.Module,
        layout: Layout,
        scheme: Scheme,
        trainer: type[BlockTrainer],
        settings: BlockSettings,
        task: Task,
        data: tuple[Examples, Examples],
        libraries: tuple[Library, Library],
        progress: Progress,
    ) -> None:
        self.model, self.layout, self.scheme, self.progress = model, layout, scheme, progress
        self.trainer, self.settings, self.task = trainer, settings, task
        self.train, self.valid = data
        self.pruned, self.tuned = libraries
        self.modules = dict(model.named_modules())
        self.device = next(model.parameters()).device
        self.result = BlockTuning({})

    def run(self, pruned: Mapping[str, str]) -> BlockTuning:
        """Tune all waves; ``pruned`` maps leaf hashes to addresses in the pruned library."""
        began = time.perf_counter()
        waves = self.scheme.waves()
        with _frozen(self.model):
            for number, wave in enumerate(waves, 1):
                jobs = self._open(wave, pruned)
                if jobs:
                    self._tune_and_store(jobs, f"wave {number}/{len(waves)}: {len(jobs)} {wave[0].level} blocks")
        self.result.seconds = time.perf_counter() - began
        return self.result

    def _tune_and_store(self, jobs: list[_Job], label: str) -> None:
        started = time.perf_counter()
        try:
            self._tune(jobs, label)
        except BaseException:  # an interrupted wave keeps the blocks that have finished
            self._store([job for job in jobs if not job.active], time.perf_counter() - started)
            raise
        self._store(jobs, time.perf_counter() - started)

    def _open(self, wave: Sequence[Node], pruned: Mapping[str, str]) -> list[_Job]:
        """Jobs for the blocks that are not stored yet; a head-pruned leaf is stored as it is."""
        jobs = []
        for node in wave:
            block = self.layout.block(node.level, node.path)  # type: ignore[arg-type]
            if node.level == "module" and node.shape(target := self.layout.target(node.path)).whole(target):
                # On base inputs the kept heads' q, k and v (the kept neurons) are exact already: nothing to tune.
                self.result.addresses[node.hash] = self._copy(pruned[node.hash])
                continue
            lineage = self._lineage(node, pruned)
            address = self.result.addresses[node.hash] = address_of(lineage)
            if address in self.tuned:
                self.tuned.verify(address)
                continue
            weights, masks = self._start(node, block, pruned)
            last = self.layout.target(block.targets[-1]).projections[-1]
            trainer = self.trainer.start(weights, masks, last, self.settings)
            jobs.append(_Job(node, block, lineage, masks, trainer))
        return jobs

    def _lineage(self, node: Node, pruned: Mapping[str, str]) -> dict[str, Any]:
        below = self._below(node, pruned)
        return {
            "stage": "tuned",
            "node": node.hash,
            "base": self.scheme.fingerprint,
            "start": [address for _, address in below],
            "settings": self.settings.lineage(self.trainer.fields),
            "data": {"train": self.train.digest, "valid": self.valid.digest},
        }

    def _below(self, node: Node, pruned: Mapping[str, str]) -> list[tuple[Library, str]]:
        """Where the block starts: its tuned children, else what is pruned below them."""
        if not node.children:
            return [(self.pruned, pruned[node.hash])]
        found = []
        for child in node.children:
            if child in self.result.addresses:
                found.append((self.tuned, self.result.addresses[child]))
            else:
                found += self._below(self.scheme.nodes[child], pruned)
        return found

    def _start(
        self, node: Node, block: Block, pruned: Mapping[str, str]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        parameters = dict(self.model.named_parameters())
        weights: dict[str, Tensor] = {name: parameters[name] for name in owned(self.model, block)}
        masks: dict[str, Tensor] = {}
        for library, address in self._below(node, pruned):
            artefact = library.get(address)
            weights |= {name: value.to(self.device) for name, value in artefact.weights.items()}
            masks |= artefact.masks
        return weights, masks

    def _copy(self, address: str) -> str:
        if address in self.tuned:
            self.tuned.verify(address)
        else:
            artefact = self.pruned.get(address)
            self.tuned.put(artefact.lineage, artefact.weights, artefact.masks)
        return address

    def _tune(self, jobs: list[_Job], label: str) -> None:
        steps, every = self.trainer.plan(self.settings)
        with (
            recording(self.model, [job.block for job in jobs]) as record,
            self.progress.bar(label, steps) as bar,
        ):
            self._validate(jobs, record, 0)
            for step in range(steps):
                live = [job for job in jobs if job.active]
                if not live:
                    break
                indices = batch_indices(len(self.train), self.settings.batch_size, seed=self.settings.seed, step=step)
                real = self._teach(self.train, indices, record)
                for job in live:
                    began = time.perf_counter()
                    run, wanted = self._lesson(job.block, record, real)
                    job.errors.append(job.trainer.step(run, wanted))
                    job.train_seconds += time.perf_counter() - began
                if (step + 1) % every == 0 or step + 1 == steps:
                    self._validate(live, record, step + 1)
                bar.advance(f"{len(live)} of {len(jobs)} still learning")

    def _teach(self, data: Examples, indices: Sequence[int], record: Recording) -> dict[str, Tensor]:
        """One recorded pass of the base model. Returns the masks of real tokens."""
        batch = to_device_of(self.model, self.task.collate([data.features[i] for i in indices]))
        with torch.no_grad(), record.listening():
            self.task.loss(self.model, batch)
        self.result.teacher_passes += 1
        return self.task.real_tokens(batch)

    def _lesson(self, block: Block, record: Recording, real: Mapping[str, Tensor]) -> tuple[_Lesson, Tensor]:
        arguments, wanted = record.of(block)
        tokens = real[block.stream]
        return _Lesson(self.modules, block, arguments, tokens), wanted[tokens]

    def _validate(self, jobs: Sequence[_Job], record: Recording, step: int) -> None:
        total: dict[str, float] = {job.node.hash: 0.0 for job in jobs}
        for indices in in_order(len(self.valid), self.settings.batch_size):
            real = self._teach(self.valid, indices, record)
            for job in jobs:
                began = time.perf_counter()
                run, wanted = self._lesson(job.block, record, real)
                total[job.node.hash] += job.trainer.error(run, wanted) * len(indices)
                job.valid_seconds += time.perf_counter() - began
        for job in jobs:
            self._judge(job, total[job.node.hash] / len(self.valid), step)

    def _judge(self, job: _Job, error: float, step: int) -> None:
        """Keep the best weights so far; stop after ``patience`` validations without a better one."""
        if error < job.best:
            job.best, job.best_weights, job.stale = error, job.trainer.finish(), 0
        else:
            job.stale += 1
        job.active = job.stale < self.settings.patience
        train = sum(job.errors) / len(job.errors) if job.errors else None
        job.errors.clear()
        rates = " ".join(f"{rate:g}" for rate in job.node.rates.values())
        epoch = step * self.settings.batch_size / len(self.train)
        times = job.train_seconds, job.valid_seconds
        row = (job.node.level, job.node.path, rates, job.node.hash, step, epoch, train, error, *times)
        job.rows.append(BlockRow(*row))

    def _store(self, jobs: Sequence[_Job], seconds: float) -> None:
        """Put the wave's blocks; what no block did alone (teacher passes) is split evenly among them."""
        if not jobs:
            return
        common = max(0.0, seconds - sum(job.train_seconds + job.valid_seconds for job in jobs)) / len(jobs)
        for job in jobs:
            stats = {
                "seconds": common + job.train_seconds + job.valid_seconds,
                "rows": [asdict(row) for row in job.rows],
            }
            self.tuned.put(job.lineage, job.best_weights, job.masks, stats=stats)
            self.result.tuned += 1


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Within the body no parameter of the teacher gets a gradient."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


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
    progress: Progress = SILENT,
) -> BlockTuning:
    """Tune every block of ``scheme`` that ``tuned`` lacks.

    Args:
        model: the base model (also the teacher), in evaluation mode; it is not changed.
        addresses: leaf hash -> address in ``pruned``.

    Returns:
        Addresses of all nodes of the tuned levels and the work spent; each block's history is kept beside it
        (:meth:`composer.library.Library.stats`).
    """
    tuner = BlockTuner(model, layout, scheme, trainer, settings, task, (train, valid), (pruned, tuned), progress)
    return tuner.run(addresses)


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
