"""Second moments of module inputs: everything that the closed forms of :mod:`composer.solve` need to know of data.

For a projection ``Y = X Wᵀ + b`` the moments are ``G = XᵀX`` over the real tokens of a calibration sample. With a
bias, ``X`` has one more column, of ones, at its end. One pass of the base model serves every criterion, every rate
and every configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batches import batch_indices
from .errors import InputError, ModelError
from .layout import Layout, Projection
from .progress import SILENT, Progress
from .running import answering, real_rows, to_device_of

if TYPE_CHECKING:
    from .tasks.task import Batch, Examples, Task


@dataclass(frozen=True, eq=False)
class Gram:
    """Second moments of one input.

    Attributes:
        matrix: ``XᵀX``, (in, in), or (in + 1, in + 1) with the column of ones last; on the CPU.
        tokens: how many real tokens it sums over.
        bias: whether the last column is the one of ones.
    """

    matrix: Tensor
    tokens: int
    bias: bool = False

    @property
    def inputs(self) -> Tensor:
        """The moments without the column of ones, (in, in)."""
        return self.matrix[:-1, :-1] if self.bias else self.matrix

    @property
    def norms(self) -> Tensor:
        """Length of each input column over all tokens, ``sqrt(diag G)``, (in,)."""
        return self.inputs.diagonal().clamp_min(0).sqrt()


@dataclass(frozen=True)
class _Input:
    """One tensor that projections read: alike in identity, stream and bias, they share its moments."""

    readers: tuple[Projection, ...]

    @property
    def width(self) -> int:
        return self.readers[0].in_features + self.readers[0].bias

    @property
    def bytes(self) -> int:
        return 8 * self.width**2


def sample_indices(examples: int, size: int, *, seed: int) -> list[int]:
    """The calibration sample: ``size`` different examples, or all when there are fewer.

    A smaller sample of the same seed is the beginning of a larger one.

    >>> sample_indices(9, 2, seed=1) == sample_indices(9, 5, seed=1)[:2]
    True
    """
    return batch_indices(examples, min(size, examples), seed=seed, step=0)


def collect(model: nn.Module, task: Task, data: Examples, layout: Layout, **options: Any) -> dict[str, Gram]:
    """Moments of every projection's input, by the projection's path; all of them are held at the end.

    Projections that read one tensor get one and the same :class:`Gram`. ``options`` are those of
    :func:`collect_in_passes`.
    """
    passes = collect_in_passes(model, task, data, layout, **options)
    found = {path: gram for grams in passes for path, gram in grams.items()}
    return {p.path: found[p.path] for t in layout.targets for p in t.projections}


@torch.no_grad()
def collect_in_passes(
    model: nn.Module,
    task: Task,
    data: Examples,
    layout: Layout,
    *,
    size: int | None = None,
    indices: Sequence[int] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    memory: int | None = None,
    progress: Progress = SILENT,
) -> Iterator[dict[str, Gram]]:
    """Moments of projections' inputs, pass by pass: whoever lets go of one before the next holds one at a time.

    Products are float32 on the model's device, one per batch; their sum is float64 where the device has it. A batch
    has some thousand rows, whose float32 sum is good to seven digits, and the long sum over batches is what would
    lose some: float64 there costs an addition, a float64 product twice the time.

    Args:
        model: the base model; it is run in evaluation mode and not changed.
        data: where the sample is drawn from.
        size: draw so many examples with ``seed`` (:func:`sample_indices`); None takes all.
        indices: exactly these examples instead of a draw.
        memory: most bytes of moments alive in one pass; the inputs are split over as many passes as it takes, in
            execution order. None is one pass.

    Raises:
        InputError: ``memory`` is less than the largest matrix needs.
        ModelError: a projection that the model never runs.
    """
    if indices is None:
        indices = sample_indices(len(data), len(data) if size is None else size, seed=seed)
    longest = sorted(indices, key=lambda i: (-_length(data.features[i]), i))
    batches = [longest[start : start + batch_size] for start in range(0, len(longest), batch_size)]
    with answering(model):
        inputs = _find_inputs(model, layout, _batch(task, data, longest[-1:], model), task)
        passes = _split(inputs, memory)
        if len(passes) > 1:
            progress.note(f"calibration: {len(passes)} passes, to stay within {memory} bytes of Gram matrices")
        for number, group in enumerate(passes, 1):
            label = f"calibration {number}/{len(passes)}" if len(passes) > 1 else "calibration"
            sums = _Sums(group, next(model.parameters()).device)
            with sums.hooked(model), progress.bar(label, len(batches)) as bar:
                for chosen in batches:
                    batch = _batch(task, data, chosen, model)
                    sums.real = task.real_tokens(batch)
                    task.loss(model, batch)
                    bar.advance()
            yield sums.grams()
            del sums


class _Sums:
    """The running sums of one pass; ``real`` holds the current batch's masks of real tokens."""

    def __init__(self, inputs: Sequence[_Input], device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.inputs = inputs
        self.matrices = [torch.zeros(i.width, i.width, dtype=dtype, device=device) for i in inputs]
        self.tokens = [0] * len(inputs)
        self.real: Mapping[str, Tensor] = {}

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Within the body each pass of ``model`` adds to the sums: one hook per input, on its first reader."""
        handles = [
            model.get_submodule(source.readers[0].path).register_forward_pre_hook(self._adder(i))
            for i, source in enumerate(self.inputs)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _adder(self, i: int) -> Any:
        projection = self.inputs[i].readers[0]

        def add(_: nn.Module, args: tuple[Any, ...]) -> None:
            rows = real_rows(args[0], self.real[projection.stream], projection.path).float()  # (tokens, in)
            if projection.bias:
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            self.matrices[i] += rows.T @ rows
            self.tokens[i] += len(rows)

        return add

    def grams(self) -> dict[str, Gram]:
        """What was summed, by the path of every reader."""
        made = [
            Gram(matrix.cpu(), tokens, source.readers[0].bias)
            for matrix, tokens, source in zip(self.matrices, self.tokens, self.inputs, strict=True)
        ]
        return {p.path: gram for gram, source in zip(made, self.inputs, strict=True) for p in source.readers}


def _find_inputs(model: nn.Module, layout: Layout, batch: Batch, task: Task) -> list[_Input]:
    """Which projections read the same tensor, seen on one small batch; in execution order."""
    projections = {p.path: p for t in layout.targets for p in t.projections}
    seen: dict[str, Tensor] = {}  # holds the tensors, so that no memory is used twice within the pass
    calls = dict.fromkeys(projections, 0)

    def keep(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen.setdefault(path, args[0])
            calls[path] += 1

        return hook

    handles = [model.get_submodule(path).register_forward_pre_hook(keep(path)) for path in projections]
    try:
        task.loss(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    if lost := [path for path in projections if path not in seen]:
        raise ModelError([f"{path}: the model never runs this projection on the task's batches" for path in lost[:5]])
    groups: dict[tuple[Any, ...], list[Projection]] = {}
    for path, tensor in seen.items():
        p = projections[path]
        same: tuple[Any, ...] = (tensor.data_ptr(), tensor._version, tensor.shape, tensor.stride(), p.stream, p.bias)
        groups.setdefault(same, []).append(p)
    # DeBERTa's query and key also project the relative positions, its value reads nothing but the tokens.
    return [_Input(tuple(sorted(readers, key=lambda p: calls[p.path]))) for readers in groups.values()]


def _split(inputs: Iterable[_Input], memory: int | None) -> list[list[_Input]]:
    """Consecutive groups of at most ``memory`` bytes each."""
    passes: list[list[_Input]] = [[]]
    used = 0
    for source in inputs:
        if memory is not None and source.bytes > memory:
            raise InputError(
                f"memory: got {memory} bytes; the moments of {source.readers[0].path}'s input alone need {source.bytes}"
            )
        if memory is not None and used + source.bytes > memory:
            passes.append([])
            used = 0
        passes[-1].append(source)
        used += source.bytes
    return passes


def _batch(task: Task, data: Examples, indices: Sequence[int], model: nn.Module) -> Batch:
    return to_device_of(model, task.collate([data.features[i] for i in indices]))


def _length(feature: Mapping[str, Any]) -> int:
    return max((len(value) for value in feature.values() if isinstance(value, Sequence)), default=0)
