"""Distilling a teacher: a model learns its probabilities and its hidden states beside the task's labels.

    (1 − a) · task loss + a · T² · KL(teacher ‖ model) + h · distance of hidden states

Hinton et al. 2015 for the answers, at temperature T, as a mean over real tokens (or examples); :mod:`.hidden` for the
hidden states. The teacher is the base model, or any other with the same tokenizer and labels
(:mod:`composer.models.teacher`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..tasks.loss import loss_and_logits
from ..tensors.forward import answering
from ..tensors.parameters import unwrapped
from .hidden import HiddenStates, States, watched

if TYPE_CHECKING:
    from ..tasks.task import Batch, Examples, Task
    from .kept_answers import KeptAnswers


class Answers:
    """The teacher of a whole model.

    Args:
        teacher: the model, or what loads it when it is first asked: where all answers are kept that is never.
        share: weight of its answers in the loss; the labels have the rest.
        temperature: that both sides' probabilities are softened by.
        hidden: pairs of layers, with ``weight`` that of their distance in the loss.
        kept: answers that need no pass.
    """

    def __init__(
        self,
        teacher: nn.Module | Callable[[], nn.Module],
        task: Task,
        share: float,
        *,
        temperature: float = 1.0,
        hidden: HiddenStates | None = None,
        weight: float = 0.0,
        kept: KeptAnswers | None = None,
    ) -> None:
        self._given, self.task, self.share, self.temperature = teacher, task, share, temperature
        self.hidden, self.weight, self.kept = hidden, weight, kept

    @cached_property
    def teacher(self) -> nn.Module:
        """The model that is asked."""
        return self._given if isinstance(self._given, nn.Module) else self._given()

    def begin(self, model: nn.Module, data: Examples) -> None:
        """What must be known before ``model`` learns: the maps between hidden states of other widths."""
        if self.hidden:
            self.hidden.learn_maps(model, self.teacher, self.task, data)

    def loss(self, model: nn.Module, batch: Batch, examples: Sequence[int] | None = None) -> Tensor:
        """The mixed loss of ``model`` on ``batch``.

        Args:
            examples: numbers of the batch's examples, by which answers are kept.

        Raises:
            ModelError: the model's output has no logits, or the teacher's are of another number.
        """
        asked = self.task.asked(batch)
        wanted, theirs = self._teacher_says(batch, asked, examples)
        with watched(unwrapped(model), self.hidden.ours if self.hidden else []) as ours:
            own, logits = self._run(model, batch)
        loss = (1 - self.share) * own
        if self.share:
            rows = (logits[asked] if asked is not None else logits).flatten(0, -2)
            loss = loss + self.share * divergence(rows, _fitting(wanted, rows), temperature=self.temperature)
        if self.hidden:
            loss = loss + self.weight * self.hidden.distance(ours, theirs, self.task.real_tokens(batch))
        return loss

    def _teacher_says(
        self, batch: Batch, asked: Tensor | None, examples: Sequence[int] | None
    ) -> tuple[Tensor, States]:
        if not self.hidden:
            return self._wanted(batch, asked, examples), {}
        with watched(self.teacher, self.hidden.theirs) as states:
            return self._wanted(batch, asked, None), states

    def _wanted(self, batch: Batch, asked: Tensor | None, examples: Sequence[int] | None) -> Tensor:
        """The teacher's logits, (rows that the loss looks at, classes)."""
        if self.kept is None or examples is None:
            logits = self.ask(batch)
            return (logits[asked] if asked is not None else logits).flatten(0, -2)
        if (known := self.kept.of(examples)) is None:
            self.kept.put(examples, self.ask(batch), asked)
            known = self.kept.of(examples)
        assert known is not None
        return known.to(batch["input_ids"].device)

    def ask(self, batch: Batch) -> Tensor:
        """A pass of the teacher over a batch on its device; its logits."""
        with answering(self.teacher):
            return self._run(self.teacher, batch)[1]

    def _run(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        loss, _, logits = loss_and_logits(model, self.task, batch)
        if logits is None:
            raise ModelError("--distill: the model's output has no logits to learn from")
        return loss, logits


def _fitting(wanted: Tensor, rows: Tensor) -> Tensor:
    """The teacher's logits where there are as many for each row as the model has.

    Raises:
        ModelError: there are not.
    """
    if wanted.shape != rows.shape:
        theirs, ours = (" x ".join(map(str, x.shape)) for x in (wanted, rows))
        raise ModelError(f"--teacher: gives {theirs} logits where the model gives {ours}; it needs the same classes")
    return wanted


def divergence(logits: Tensor, target: Tensor, asked: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """``T² · KL(target ‖ logits)`` of (..., classes), the mean over rows that are ``asked`` (..., bool), else over all.

    Both distributions are softened by the temperature T; its square keeps gradients as large as at T = 1.
    """
    if asked is not None:
        logits, target = logits[asked], target[asked]
    own, base = (F.log_softmax(x.flatten(0, -2) / temperature, -1) for x in (logits, target))
    return F.kl_div(own, base, log_target=True, reduction="batchmean") * temperature**2
