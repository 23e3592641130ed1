"""Distilling the base model's answers: the pruned model learns its probabilities beside the task's labels.

Hinton et al. 2015, at temperature 1: ``(1 - a) · task loss + a · KL(base ‖ model)``, the divergence as a mean over real
tokens (or examples).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..tasks.loss import loss_and_logits
from ..tensors.forward import answering

if TYPE_CHECKING:
    from ..tasks.task import Batch, Task


class Answers:
    """The base model as the teacher of a whole model; ``share`` is the weight of its answers in the loss."""

    def __init__(self, base: nn.Module, task: Task, share: float) -> None:
        self.base, self.task, self.share = base, task, share

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mixed loss of ``model`` on ``batch``.

        Raises:
            ModelError: the model's output has no logits.
        """
        with answering(self.base):
            _, base_logits = self._run(self.base, batch)
        own, logits = self._run(model, batch)
        return (1 - self.share) * own + self.share * divergence(logits, base_logits, self.task.asked(batch))

    def _run(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        loss, _, logits = loss_and_logits(model, self.task, batch)
        if logits is None:
            raise ModelError("--distill: the model's output has no logits to learn from")
        return loss, logits


def divergence(logits: Tensor, target: Tensor, asked: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """``T² · KL(target ‖ logits)`` of (..., classes), the mean over rows that are ``asked`` (..., bool), else over all.

    Both distributions are softened by the temperature T; its square keeps gradients as large as at T = 1.
    """
    if asked is not None:
        logits, target = logits[asked], target[asked]
    own, base = (F.log_softmax(x.flatten(0, -2) / temperature, -1) for x in (logits, target))
    return F.kl_div(own, base, log_target=True, reduction="batchmean") * temperature**2
