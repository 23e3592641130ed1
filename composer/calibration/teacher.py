"""The base model as the teacher of blocks: one pass over a batch gives every block its inputs and what to answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..scheme.layout import Block, End, Layout
from ..tensors.capture import Arguments, Recording, recording, result_of, run_block
from ..tensors.forward import real_rows, to_device_of
from .sample import Calibration

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..tasks.task import Batch, Examples, Task


@dataclass(frozen=True)
class Lesson:
    """One batch for one block: the base model's inputs to it, and what it made of them at real tokens."""

    modules: Mapping[str, nn.Module]
    block: Block
    arguments: Arguments
    tokens: Tensor
    wanted: Tensor

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The block's output with other parameters, at real tokens: (tokens, width)."""
        return real_rows(run_block(self.modules, self.block, parameters, self.arguments), self.tokens, self.block.path)

    def probe(self, parameters: Mapping[str, Tensor], end: End) -> tuple[Tensor, Tensor]:
        """What the last projection before ``end`` reads, (tokens, in), and the stream there, (tokens, width)."""
        seen: dict[str, Tensor] = {}

        def keep(name: str, value: Any) -> None:
            seen[name] = real_rows(result_of(value), self.tokens, self.block.path)

        place = self.modules[end.path]
        last = self.modules[end.last.path]
        with (
            last.register_forward_pre_hook(lambda _, given: keep("read", given[0])),
            place.register_forward_pre_hook(lambda _, given: keep("stream", given[0]))
            if end.is_input
            else place.register_forward_hook(lambda _, __, output: keep("stream", output)),
        ):
            self(parameters)
        return seen["read"], seen["stream"]


class Teacher:
    """Runs the base model on batches while :meth:`watching` blocks; ``passes`` counts how often."""

    def __init__(
        self, model: nn.Module, layout: Layout, task: Task, train: Examples, valid: Examples, calibration: Calibration
    ) -> None:
        self.model, self.layout, self.task = model, layout, task
        self.examples = {"train": train, "valid": valid}
        self.calibration = calibration
        self.modules = dict(model.named_modules())
        self._passes = 0
        self._record: Recording | None = None
        self._real: Mapping[str, Tensor] = {}

    @property
    def passes(self) -> int:
        """Batches that the base model was run on, those of the calibration's moments counted."""
        return self._passes + self.calibration.passes * len(self.calibration.indices)

    @contextmanager
    def watching(self, blocks: Sequence[Block]) -> Iterator[None]:
        """Within the body passes are recorded for these blocks, and no parameter of the model gets a gradient."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        for p in trained:
            p.requires_grad_(False)
        try:
            with recording(self.model, blocks) as self._record:
                yield
        finally:
            self._record, self._real = None, {}
            for p in trained:
                p.requires_grad_(True)

    def teach(self, split: Literal["train", "valid"], indices: Sequence[int]) -> None:
        """Run the model on these examples; :meth:`lesson` then tells what each watched block had to do."""
        data = self.examples[split]
        self.show(self.task.collate([data.features[i] for i in indices]))

    def show(self, batch: Batch) -> None:
        """Run the model on a batch."""
        if self._record is None:
            raise RuntimeError("a teacher teaches only while it is watching")
        here = to_device_of(self.model, batch)
        with torch.no_grad(), self._record.listening():
            self.task.loss(self.model, here)
        self._passes += 1
        self._real = self.task.real_tokens(here)

    def lesson(self, block: Block) -> Lesson:
        """The last batch, for one block."""
        if self._record is None:
            raise RuntimeError("a teacher teaches only while it is watching")
        arguments, wanted = self._record.of(block)
        tokens = self._real[block.stream]
        return Lesson(self.modules, block, arguments, tokens, real_rows(wanted, tokens, block.path))

    def stream(self, end: End, block: Block) -> Tensor:
        """The base model's own stream at ``end``, at real tokens: (tokens, width)."""
        if self._record is None:
            raise RuntimeError("a teacher teaches only while it is watching")
        return real_rows(self._record.results[end.path], self._real[block.stream], end.path)
