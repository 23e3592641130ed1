"""``distill_loss``: the loss of a pruned model that learns a teacher's answers beside the labels.

Hinton et al. 2015: ``(1 - a) · task loss + a · T² · KL(teacher ‖ model)`` at temperature T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def distill_loss(teacher: nn.Module, model: nn.Module, *, share: float = 0.5, temperature: float = 1.0) -> DistillLoss:
    """What a Trainer takes as ``compute_loss_func``: ``Trainer(…, compute_loss_func=distill_loss(teacher, model))``.

    Args:
        teacher: of any size, with the same classes or words; it is not changed.
        model: that learns. The Trainer hands over its answers and not what it was asked, so it is listened to.
        share: weight of the teacher's answers, from 0 to 1.
        temperature: that both distributions are softened by.

    Raises:
        RecipeError: a share or a temperature that makes no sense.
        ModelError: a teacher with other classes or another vocabulary, said when the first answers are compared.
    """
    return DistillLoss(teacher, model, share, temperature)


class DistillLoss:
    """See :func:`distill_loss`."""

    def __init__(self, teacher: nn.Module, model: nn.Module, share: float, temperature: float) -> None:
        from ...errors import RecipeError

        if not 0 <= share <= 1:
            raise RecipeError(f"distill_loss: share: got {share}; allowed: from 0 to 1")
        if not temperature > 0:
            raise RecipeError(f"distill_loss: temperature: got {temperature}; allowed: above 0")
        check_vocabularies(teacher, model)
        self.teacher, self.model, self.share, self.temperature = teacher, model, share, temperature
        self._asked: dict[str, Any] = {}
        model.register_forward_pre_hook(self._listen, with_kwargs=True)

    def _listen(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._asked = {name: value for name, value in kwargs.items() if name != "num_items_in_batch"}

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None) -> Tensor:
        """The mixed loss; per label where the Trainer says how many there are in all accumulated batches."""
        from .task_loss import answers_of, task_loss

        own = task_loss(self.model, outputs, labels, num_items_in_batch)
        if not self.model.training:  # validation: the task's loss, as without a teacher
            return own
        pairs = list(zip(answers_of(outputs), answers_of(self._teacher_says()), strict=True))
        learnt = sum(self._divergence(a, b, labels, num_items_in_batch) for a, b in pairs) / len(pairs)
        return (1 - self.share) * own + self.share * learnt

    def _divergence(self, logits: Tensor, target: Tensor, labels: Tensor | None, count: Any) -> Tensor:
        from ..distillation import divergence
        from .task_loss import asked_rows

        (own, _), (base, _) = (asked_rows(self.model, x, labels) for x in (logits, target))
        mean = divergence(own.float(), base.float(), temperature=self.temperature)
        return mean if count is None or labels is None else mean * len(own) / count

    def _teacher_says(self) -> Any:
        import torch

        from ...tensors.forward import answering, to_device_of

        asked = {name: value for name, value in self._asked.items() if isinstance(value, torch.Tensor)}
        first = next(iter(asked.values()))
        if next(self.teacher.parameters()).device != first.device:
            self.teacher.to(first.device)
        with answering(self.teacher):
            return self.teacher(**to_device_of(self.teacher, asked))


def check_vocabularies(teacher: nn.Module, model: nn.Module) -> None:
    """Refuse a teacher that reads other tokens or knows other classes.

    Raises:
        ModelError: with both numbers.
    """
    from ...errors import ModelError

    theirs, ours = getattr(teacher, "config", None), getattr(model, "config", None)
    problems = [
        f"teacher: has {a} {what}, the model {b}; a teacher needs the same tokenizer and label set"
        for name, what in (("vocab_size", "words"), ("num_labels", "classes"))
        if isinstance(a := getattr(theirs, name, None), int) and isinstance(b := getattr(ours, name, None), int)
        if a != b
    ]
    if problems:
        raise ModelError(problems)
