"""The loss of a model: on a batch with its logits, and over a whole split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..tensors.batches import by_length
from ..tensors.forward import answering, to_device_of
from .task import Examples, Task, input_lengths

if TYPE_CHECKING:
    from torch import nn

    from .task import Batch, Score


def mean_loss(model: nn.Module, task: Task, data: Examples, *, batch_size: int = 64) -> float:
    """Mean loss per real token (or example) over ``data``."""
    return loss_and_count(model, task, data, batch_size=batch_size)[0]


def scored_loss(score: Score, model: nn.Module, task: Task, data: Examples, *, batch_size: int = 64) -> float:
    """The mean loss that a metric run has told, or else measured now."""
    return mean_loss(model, task, data, batch_size=batch_size) if score.loss is None else score.loss


def loss_and_count(model: nn.Module, task: Task, data: Examples, *, batch_size: int = 64) -> tuple[float, int]:
    """Mean loss over ``data`` and of how many tokens (or examples), in evaluation mode; the mode is put back.

    Every token counts once, however the batches fall (a mean of batch means would weigh short ones more).
    """
    total, count = 0.0, 0
    lengths = input_lengths(data.features)
    with answering(model):
        for indices in by_length(lengths, batch_size):
            batch = to_device_of(model, task.collate([data.features[i] for i in indices]))
            loss, n = task.loss(model, batch)
            total, count = total + loss.item() * n, count + n
    return total / max(1, count), count


def loss_and_logits(model: nn.Module, task: Task, batch: Batch) -> tuple[Tensor, int, Tensor | None]:
    """The loss on a batch, what it is a mean over, and the model's logits; None where it has no single ones.

    The last dimension is of classes of which one is the answer: a task whose logits are not such has ``choices``. Of a
    span they are (batch, 2, length), where it begins and where it ends.
    """
    seen: list[Any] = []
    with model.register_forward_hook(lambda _, __, output: seen.append(output)):
        loss, count = task.loss(model, batch)
    logits = _logits(seen[-1])
    choices = getattr(task, "choices", None)
    return loss, count, choices(logits) if choices and logits is not None else logits


def _logits(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    fields = output if isinstance(output, Mapping) else vars(output)
    if (start := fields.get("start_logits")) is not None:
        return torch.stack([start, fields["end_logits"]], 1)
    return fields.get("logits")
