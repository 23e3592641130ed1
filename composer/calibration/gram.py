"""Second moments of module inputs: everything that closed forms need to know of data.

For a projection ``Y = X Wᵀ + b`` the moments are ``G = XᵀX`` over the real tokens of a calibration sample. With a
bias, ``X`` has one more column, of ones, at its end. One pass of the base model serves every criterion, every rate
and every configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..progress import Bar
from ..scheme.layout import Layout, Projection
from ..tensors.finite import is_finite
from ..tensors.forward import answering, hooked, real_rows, to_device_of
from ..tensors.precision import exact

if TYPE_CHECKING:
    from ..tasks.task import Batch, Task


@dataclass(frozen=True, eq=False)
class Gram:
    """Second moments of one input.

    Attributes:
        matrix: ``XᵀX``, (in, in), or (in + 1, in + 1) with the column of ones last; on the CPU.
        tokens: how many real tokens it sums over.
        bias: whether the last column is the one of ones.
        examples: how many sequences the tokens belong to.
        metric: where tokens are weighted by how much the loss depends on what one projection makes of them
            (:mod:`.loss_moments`): ``M`` (out, out), which of its outputs it depends on; of a module that holds several
            projections, of all of them. None of plain moments.
    """

    matrix: Tensor
    tokens: int
    bias: bool = False
    examples: int = 1
    metric: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """The moments without the column of ones, (in, in)."""
        return self.matrix[:-1, :-1] if self.bias else self.matrix

    @property
    def norms(self) -> Tensor:
        """Length of each input column over all tokens, ``sqrt(diag G)``, (in,)."""
        return self.inputs.diagonal().clamp_min(0).sqrt()


def root_of(metric: Tensor) -> Tensor:
    """``R`` (out, out) float64 with ``RᵀR`` the ``metric``."""
    values, vectors = torch.linalg.eigh(metric.double())
    return values.clamp_min(0).sqrt()[:, None] * vectors.T


@dataclass(frozen=True)
class Input:
    """One tensor that projections read: alike in identity, stream and bias, they share its moments."""

    readers: tuple[Projection, ...]
    calls: int = 1
    """How often in a pass the first reader runs."""
    metric: bool = False
    """Whether it has moments that know the loss, which are those of one reader alone."""

    @property
    def width(self) -> int:
        return self.readers[0].in_features + self.readers[0].bias

    @property
    def bytes(self) -> int:
        return 8 * (self.width**2 + self.metric * self.readers[0].rows ** 2)

    @property
    def by_reader(self) -> list[Input]:
        """The same for moments that know the loss: what a token matters differs from reader to reader."""
        return [Input((reader,), metric=True) for reader in {p.path: p for p in self.readers}.values()]


def gather(
    model: nn.Module, task: Task, batches: Iterable[Batch], inputs: Sequence[Input], bar: Bar | None = None
) -> dict[str, Gram]:
    """Moments of ``inputs`` over ``batches`` in one pass of ``model``, by the path of every reader.

    ``inputs`` come in execution order (:func:`find_inputs`); each batch goes no further than to the last of them.

    Products are float32 on the model's device, one per batch; their sum is float64 where the device has it. A batch
    has some thousand rows, whose float32 sum is good to seven digits, and the long sum over batches is what would
    lose some: float64 there costs an addition, a float64 product twice the time.
    """
    sums = _Sums(inputs, next(model.parameters()).device)
    with answering(model), sums.hooked(model):
        for batch in batches:
            here = to_device_of(model, batch)
            sums.real = task.real_tokens(here)
            with suppress(_Enough):
                task.loss(model, here)
            if bar:
                bar.advance()
    if lost := [source.readers[0].path for source, m in zip(inputs, sums.matrices, strict=True) if not is_finite(m)]:
        raise ModelError(f"{lost[0]}: what this module reads on the calibration sample is not finite, or overflows")
    return sums.grams()


class _Enough(Exception):  # noqa: N818  (no error: what comes after the last input is nobody's business)
    """Ends a pass early."""


class _Sums:
    """The running sums of one pass; ``real`` holds the current batch's masks of real tokens."""

    def __init__(self, inputs: Sequence[Input], device: torch.device) -> None:
        dtype = exact(device)
        self.inputs = inputs
        self.matrices = [torch.zeros(i.width, i.width, dtype=dtype, device=device) for i in inputs]
        self.tokens = [0] * len(inputs)
        self.examples = [0] * len(inputs)
        self.calls = [0] * len(inputs)
        self.real: Mapping[str, Tensor] = {}

    def hooked(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the body each pass of ``model`` adds to the sums: one hook per input, on its first reader."""
        return hooked(
            model.get_submodule(source.readers[0].path).register_forward_pre_hook(self._adder(i))
            for i, source in enumerate(self.inputs)
        )

    def _adder(self, i: int) -> Any:
        projection = self.inputs[i].readers[0]

        def add(_: nn.Module, args: tuple[Any, ...]) -> None:
            real = self.real[projection.stream]  # (sequences, length)
            rows = real_rows(args[0], real, projection.path).float()  # (tokens, in)
            if projection.bias:
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            self.matrices[i] += rows.T @ rows
            self.tokens[i] += len(rows)
            self.examples[i] += len(real)
            self.calls[i] += 1
            if i == len(self.inputs) - 1 and self.calls[i] % self.inputs[i].calls == 0:
                raise _Enough

        return add

    def grams(self) -> dict[str, Gram]:
        """What was summed, by the path of every reader."""
        made = [
            Gram(matrix.cpu(), tokens, source.readers[0].bias, examples)
            for matrix, tokens, examples, source in zip(
                self.matrices, self.tokens, self.examples, self.inputs, strict=True
            )
        ]
        return {p.path: gram for gram, source in zip(made, self.inputs, strict=True) for p in source.readers}


def find_inputs(model: nn.Module, layout: Layout, batch: Batch, task: Task) -> list[Input]:
    """Which projections read the same tensor, seen on one small batch; in execution order.

    Raises:
        ModelError: a projection that the model never runs.
    """
    projections = {p.path: p for t in layout.targets for p in t.projections}
    seen: dict[str, Tensor] = {}  # holds the tensors, so that no memory is used twice within the pass
    calls = dict.fromkeys(projections, 0)

    def keep(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen.setdefault(path, args[0])
            calls[path] += 1

        return hook

    hooks = (model.get_submodule(path).register_forward_pre_hook(keep(path)) for path in projections)
    with answering(model), hooked(hooks):
        task.loss(model, to_device_of(model, batch))
    if lost := [path for path in projections if path not in seen]:
        raise ModelError([f"{path}: the model never runs this projection on the task's batches" for path in lost[:5]])
    groups: dict[tuple[Any, ...], list[Projection]] = {}
    for path, tensor in seen.items():
        p = projections[path]
        same: tuple[Any, ...] = (tensor.data_ptr(), tensor._version, tensor.shape, tensor.stride(), p.stream, p.bias)
        groups.setdefault(same, []).append(p)
    # DeBERTa's query and key also project the relative positions, its value reads nothing but the tokens.
    ordered = [tuple(sorted(readers, key=lambda p: calls[p.path])) for readers in groups.values()]
    return [Input(readers, calls[readers[0].path]) for readers in ordered]
