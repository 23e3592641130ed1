"""Gradients of the loss on the calibration sample: what a first-order criterion needs to know of data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .layout import Layout
from .progress import SILENT, Progress
from .running import answering, to_device_of

if TYPE_CHECKING:
    from .tasks.task import Examples, Task


def collect_gradients(
    model: nn.Module,
    task: Task,
    data: Examples,
    layout: Layout,
    *,
    indices: Sequence[int],
    batch_size: int = 32,
    progress: Progress = SILENT,
) -> dict[str, Tensor]:
    """``∂L/∂W`` of every projection, by its path, (out, in) on the CPU.

    ``L`` is the mean loss over all real tokens (or examples) of the sample, without dropout; how it is cut into
    batches changes rounding only. The model is not changed, and its other parameters get no gradients.
    """
    parameters = dict(model.named_parameters())
    projections = [p for target in layout.targets for p in target.projections]
    weights = [parameters[p.weight] for p in projections]
    asked = [weight.requires_grad for weight in weights]
    sums, count = [torch.zeros_like(weight) for weight in weights], 0
    starts = range(0, len(indices), batch_size)
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with answering(model), torch.enable_grad(), progress.bar("gradients", len(starts)) as bar:
            for start in starts:
                chosen = [data.features[i] for i in indices[start : start + batch_size]]
                loss, size = task.loss(model, to_device_of(model, task.collate(chosen)))
                for total, gradient in zip(sums, torch.autograd.grad(loss * size, weights), strict=True):
                    total += gradient
                count += size
                bar.advance()
    finally:
        for weight, before in zip(weights, asked, strict=True):
            weight.requires_grad_(before)
    means = [(total / max(1, count)).cpu() for total in sums]
    return {p.path: mean.T if p.transposed else mean for p, mean in zip(projections, means, strict=True)}
