"""Gradients of the loss on the calibration sample: what a first-order criterion needs to know of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..progress import SILENT, Progress
from ..scheme.layout import Layout, Projection
from ..tensors.forward import answering, hooked, to_device_of

if TYPE_CHECKING:
    from ..tasks.task import Examples, Task

MINIBATCH = 8
"""Examples over which a gradient is taken before its absolute value: near a minimum the mean over all is 0."""


@dataclass(frozen=True)
class Gradients:
    """Mean absolute gradients of the base model's loss.

    Attributes:
        weights: by projection, (out, in): mean of ``|∂L_b/∂W|`` over mini-batches b, by their real tokens.
        gates: by path of an attention target (heads,) or of a feed-forward (neurons,): mean of ``|∂L(x)/∂ξ|`` over
            examples x, with a gate ξ = 1 on the output of each unit and ``L(x)`` the loss summed over x's tokens.
    """

    weights: Mapping[Projection, Tensor]
    gates: Mapping[str, Tensor]


def collect_gradients(
    model: nn.Module,
    task: Task,
    data: Examples,
    layout: Layout,
    *,
    indices: Sequence[int],
    batch_size: int = MINIBATCH,
    progress: Progress = SILENT,
) -> Gradients:
    """One pass forward and back over the examples at ``indices``, without dropout; on the CPU.

    Of gates see :class:`Gates`. The model is not changed.
    """
    parameters = dict(model.named_parameters())
    projections = [p for target in layout.targets for p in target.projections]
    weights = [parameters[p.weight] for p in projections]
    required = [weight.requires_grad for weight in weights]
    sums, gates, tokens = [torch.zeros_like(weight) for weight in weights], Gates(unit_readers(layout), torch.abs), 0
    starts = range(0, len(indices), batch_size)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with answering(model), torch.enable_grad(), gates.hooked(model), progress.bar("gradients", len(starts)) as bar:
            for start in starts:
                chosen = [data.features[i] for i in indices[start : start + batch_size]]
                gates.begin(len(chosen))
                loss, size = task.loss(model, to_device_of(model, task.collate(chosen)))
                for total, gradient in zip(sums, torch.autograd.grad(loss * size, weights), strict=True):
                    total += gradient.abs()
                tokens += size
                bar.advance()
    finally:
        for weight, before in zip(weights, required, strict=True):
            weight.requires_grad_(before)
    means = [(total / max(1, tokens)).cpu() for total in sums]
    return Gradients(
        {p: p.of(mean) for p, mean in zip(projections, means, strict=True)},
        {path: (total / max(1, len(indices))).cpu() for path, total in gates.sums.items()},
    )


def unit_readers(layout: Layout) -> dict[str, tuple[str, int]]:
    """Path of an attention or feed-forward -> the projection that reads its units, and how many they are."""
    readers: dict[str, tuple[str, int]] = {}
    for target in layout.targets:
        if target.kind == "attention":
            readers[target.path] = layout.out_projection(target.path).path, target.heads
        elif whole := layout.feed_forward(target.path):
            readers[target.path] = whole.projections[-1].path, whole.heads
    return readers


class Gates:
    """Sums over examples of what the gradients in gates come to: by path, (units,).

    The gate of a unit multiplies what the next projection reads of it, ``h``; its gradient is ``Σ h · ∂L/∂h`` over
    the example's tokens, so no gate has to be put into the model.

    Attributes:
        sums: by path, (units,).
        reads: what the projections have read in this batch; gradients in them are enough for the sums.
    """

    def __init__(self, readers: Mapping[str, tuple[str, int]], measure: Callable[[Tensor], Tensor]) -> None:
        """Nothing is summed yet.

        Args:
            readers: path -> the projection that reads its units side by side, and how many they are.
            measure: what is summed, of gradients (examples, units), element by element.
        """
        self.readers, self.measure, self.examples = readers, measure, 0
        self.sums: dict[str, Tensor] = {}
        self.reads: dict[str, Tensor] = {}

    def begin(self, examples: int) -> None:
        """A batch of so many examples is run next; that of the batch before is let go of."""
        self.examples = examples
        self.reads.clear()

    def hooked(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the body each pass back adds to the sums."""
        return hooked(
            model.get_submodule(reader).register_forward_pre_hook(self._listener(path, units))
            for path, (reader, units) in self.readers.items()
        )

    def _listener(self, path: str, units: int) -> Any:
        def listen(_: nn.Module, args: tuple[Any, ...]) -> None:
            self.reads[path] = read = args[0]

            def add(gradient: Tensor) -> None:
                products = (read.detach() * gradient).reshape(self.examples, -1, units, read.shape[-1] // units)
                total = self.measure(products.sum((1, 3))).sum(0)
                self.sums[path] = self.sums[path] + total if path in self.sums else total

            read.register_hook(add)

        return listen
