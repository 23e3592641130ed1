"""The task's own loss from a model's answers, as the Trainer asks a ``compute_loss_func`` for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ModelError

IGNORED = -100
"""Label of what the loss does not look at."""


def answers_of(outputs: Any) -> list[Tensor]:
    """Logits in a model's output: (batch, classes), (batch, length, words), or two of (batch, length) for spans.

    Raises:
        ModelError: there are none.
    """
    fields = outputs if isinstance(outputs, Mapping) else vars(outputs)
    if fields.get("logits") is not None:
        return [fields["logits"]]
    if fields.get("start_logits") is not None:
        return [fields["start_logits"], fields["end_logits"]]
    raise ModelError("distill_loss: the model's output has no logits to learn from")


def asked_rows(model: nn.Module, logits: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The logits that have a label, (rows, classes), with their labels: of a causal model's token the next one.

    Without labels (spans, whose loss the model takes itself) all rows.
    """
    if labels is None:
        return logits.flatten(0, -2) if logits.dim() > 2 else logits, None
    if logits.dim() == labels.dim():  # regression, or several labels for each example
        return logits, labels
    if logits.dim() == 3 and is_causal(model):
        logits, labels = logits[:, :-1], labels[:, 1:]
    asked = labels != IGNORED
    return logits[asked], labels[asked]


def is_causal(model: nn.Module) -> bool:
    """Whether a label belongs to the token before it: decoders alone; an encoder-decoder shifts its own inputs."""
    causal = type(model).__name__.endswith(("ForCausalLM", "LMHeadModel", "DoubleHeadsModel"))
    return causal and not getattr(model.config, "is_encoder_decoder", False)


def task_loss(model: nn.Module, outputs: Any, labels: Tensor | None, count: Any = None) -> Tensor:
    """Cross-entropy per label; the model's own loss where it has taken one, as for spans.

    Args:
        count: labels in all accumulated batches, which the sum is divided by; None: those of this batch.

    Raises:
        ModelError: answers that are no classes, which a teacher's probabilities cannot be compared with.
    """
    if labels is None:
        own: Tensor = outputs["loss"]
        return own
    logits, wanted = asked_rows(model, answers_of(outputs)[0], labels)
    if wanted is None or wanted.is_floating_point() or logits.shape[-1] == 1:
        raise ModelError("distill_loss: the labels are numbers, not classes; there are no probabilities to learn")
    return F.cross_entropy(logits.float(), wanted, reduction="sum") / (len(wanted) if count is None else count)
