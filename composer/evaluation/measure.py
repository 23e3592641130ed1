"""Evaluate: task metric, loss, sparsity, seconds per example, memory."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ModelError
from ..scheme.layout import Layout
from ..tasks.loss import scored_loss
from ..tasks.task import Examples, Task
from ..tensors.finite import first_module_not_finite
from ..tensors.forward import answering, to_device_of
from ..tensors.masks import zeros_per_target
from .intervals import intervals_of

if TYPE_CHECKING:
    from torch import nn


def measure(
    model: nn.Module, layout: Layout | None, task: Task, data: Examples, *, batch_size: int = 64
) -> dict[str, Any]:
    """Everything that ``results/*.json`` says about one model on one split.

    ``sparsity`` is the share of exact zeros in target weights, or None
    without a layout, as of an export; ``intervals`` those of the metrics that
    can have one; ``memory_bytes`` the peak of the process (host) or of the
    device.

    Raises:
        ModelError: the model computes no numbers on the first examples; before anything is measured.
    """
    _check_finite(model, task, data)
    score = task.score(model, data, batch_size=batch_size)
    zeros = zeros_per_target(model, layout) if layout else {}
    return {
        "split": data.split,
        "source": data.source,
        "examples": len(data),
        "loss": scored_loss(score, model, task, data, batch_size=batch_size),
        "metrics": score.metrics,
        "intervals": intervals_of(score, task),
        "details": score.details,
        "sparsity": sum(z for z, _ in zeros.values()) / max(1, sum(n for _, n in zeros.values())) if layout else None,
        "seconds_per_example": score.details["seconds"] / len(data),
        "memory_bytes": peak_memory(next(model.parameters()).device),
    }


def _check_finite(model: nn.Module, task: Task, data: Examples) -> None:
    batch = to_device_of(model, task.collate(data.features[:8]))
    with answering(model):
        loss = task.loss(model, batch)[0]
    if not loss.isfinite():
        where = first_module_not_finite(model, lambda: task.loss(model, batch)) or "the loss"
        raise ModelError(f"{where}: what it computes on {data.source} is not finite; nothing can be measured")


def peak_memory(device: torch.device | None = None) -> int:
    """Most memory so far, in bytes: of the device where it counts its own, else of the process."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
