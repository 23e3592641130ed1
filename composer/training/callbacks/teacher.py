"""``distill_loss``: the loss of a model that learns a teacher's answers and hidden states beside the labels.

Hinton et al. 2015: ``(1 - a) · task loss + a · T² · KL(teacher ‖ model)`` at temperature T; and ``hidden`` times the
distance of paired layers (:mod:`composer.training.hidden`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..hidden import HiddenStates, MapSums

LEARNT_FROM = 8
"""Batches that maps between hidden states of other widths are learnt from, before those count."""


def distill_loss(
    teacher: nn.Module,
    model: nn.Module | None = None,
    *,
    share: float = 0.5,
    temperature: float = 1.0,
    hidden: float = 0.0,
) -> DistillLoss:
    """What a Trainer takes as ``compute_loss_func``: ``Trainer(…, compute_loss_func=distill_loss(teacher))``.

    Args:
        teacher: of any size, with the same classes or words; it is not changed.
        model: that learns; None takes the Trainer's, when it first asks. The Trainer hands over its answers and not
            what it was asked, so it is listened to.
        share: weight of the teacher's answers, from 0 to 1.
        temperature: that both distributions are softened by.
        hidden: weight of the distance between the layers of both, from the second step on; where their widths differ
            after eight, from which a linear map is learnt.

    Raises:
        RecipeError: a share, a temperature or a weight that makes no sense.
        ModelError: a teacher with other classes or another vocabulary; layers that no table knows.
    """
    return DistillLoss(teacher, model, share, temperature, hidden)


class DistillLoss:
    """See :func:`distill_loss`.

    Attributes:
        hidden: pairs of layers; None where hidden states play no part.
        last: parts of the last loss: ``task``, ``answers``, ``hidden``.
    """

    def __init__(
        self,
        teacher: nn.Module,
        model: nn.Module | None,
        share: float = 0.5,
        temperature: float = 1.0,
        hidden: float = 0.0,
    ) -> None:
        from ...errors import RecipeError

        if not 0 <= share <= 1:
            raise RecipeError(f"distill_loss: share: got {share}; allowed: from 0 to 1")
        if not temperature > 0:
            raise RecipeError(f"distill_loss: temperature: got {temperature}; allowed: above 0")
        if not hidden >= 0:
            raise RecipeError(f"distill_loss: hidden: got {hidden}; allowed: 0 or more")
        self.teacher, self.share, self.temperature, self.weight = teacher, share, temperature, hidden
        self.hidden: HiddenStates | None = None
        self.last: dict[str, Tensor] = {}
        self._model: nn.Module | None = None
        self._asked: dict[str, Any] = {}
        self._ours: dict[str, Tensor] = {}
        self._sums: MapSums | None = None
        self._seen = 0
        if model is not None:
            self._listen_to(model)

    def _listen_to(self, model: nn.Module) -> None:
        from ...tensors.parameters import unwrapped

        model = unwrapped(model)  # of DDP, which says neither its classes nor its kind
        check_vocabularies(self.teacher, model)
        self._model = model
        model.register_forward_pre_hook(self._listen, with_kwargs=True)
        if self.weight:
            from ...models.in_memory import layout_in_memory
            from ..hidden import HiddenStates, MapSums, watch

            self.hidden = HiddenStates(*(layout_in_memory(unwrapped(one)) for one in (model, self.teacher)))
            self._sums = MapSums(self.hidden)
            watch(model, self.hidden.ours, self._ours)

    def _listen(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._asked = {name: value for name, value in kwargs.items() if name != "num_items_in_batch"}

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None) -> Tensor:
        """The mixed loss; per label where the Trainer says how many there are in all accumulated batches.

        Raises:
            ModelError: no model was named, and it is no Trainer that asks.
        """
        from .task_loss import answers_of, task_loss

        # A compiled model has a length of its own, so it is not asked whether it is true.
        model = self._take(sys._getframe(1).f_locals) if self._model is None else self._model
        own = task_loss(model, outputs, labels, num_items_in_batch)
        if not model.training:  # validation: the task's loss, as without a teacher
            return own
        said, theirs = self._teacher_says()
        pairs = list(zip(answers_of(outputs), answers_of(said), strict=True))
        learnt: Tensor = sum(self._divergence(model, a, b, labels, num_items_in_batch) for a, b in pairs) / len(pairs)
        loss: Tensor = (1 - self.share) * own + self.share * learnt
        self.last = {"task": own.detach(), "answers": learnt.detach()}
        if (apart := self._apart(theirs, labels)) is not None:
            self.last["hidden"] = apart.detach()
            loss = loss + self.weight * apart * self._part_of(model, outputs, labels, num_items_in_batch)
        return loss

    def _take(self, caller: Mapping[str, Any]) -> nn.Module:
        from torch import nn

        from ...errors import ModelError

        model, inputs = caller.get("model"), caller.get("inputs")
        if not isinstance(model, nn.Module) or not isinstance(inputs, Mapping):
            raise ModelError("distill_loss: which model learns? distill_loss(teacher, model)")
        self._listen_to(model)
        self._asked = dict(inputs)
        return model

    def _divergence(self, model: nn.Module, logits: Tensor, target: Tensor, labels: Tensor | None, count: Any) -> Any:
        from ..distillation import divergence
        from .task_loss import asked_rows

        (own, _), (base, _) = (asked_rows(model, x, labels) for x in (logits, target))
        mean = divergence(own.float(), base.float(), temperature=self.temperature)
        return mean if count is None or labels is None else mean * len(own) / count

    def _part_of(self, model: nn.Module, outputs: Any, labels: Tensor | None, count: Any) -> Any:
        """Which part of all accumulated batches this one is, by its labels: their losses are added up."""
        from .task_loss import answers_of, asked_rows

        if count is None or labels is None:
            return 1.0
        return len(asked_rows(model, answers_of(outputs)[0], labels)[0]) / count

    def _teacher_says(self) -> tuple[Any, dict[str, Tensor]]:
        import torch

        from ...tensors.forward import answering, to_device_of
        from ..hidden import watched

        asked = {name: value for name, value in self._asked.items() if isinstance(value, torch.Tensor)}
        first = next(iter(asked.values()))
        if next(self.teacher.parameters()).device != first.device:
            self.teacher.to(first.device)
        with answering(self.teacher), watched(self.teacher, self.hidden.theirs if self.hidden else []) as states:
            return self.teacher(**to_device_of(self.teacher, asked)), states

    def _apart(self, theirs: dict[str, Tensor], labels: Tensor | None) -> Tensor | None:
        """The distance of hidden states; None where they play no part, or not yet."""
        if self.hidden is None or self._sums is None or not self._ours:
            return None
        tokens = self._tokens(labels)
        if self.hidden.unlearnt:
            self._sums.add(self._ours, theirs, tokens)
            self._seen += 1
            if self._seen < LEARNT_FROM:
                return None
            self._sums.solve()
        return self.hidden.distance(self._ours, theirs, tokens)

    def _tokens(self, labels: Tensor | None) -> dict[str, Tensor]:
        """Stream -> where a token is real, by the attention masks that the model was given."""
        from .task_loss import IGNORED

        ids, mask = self._asked["input_ids"], self._asked.get("attention_mask")
        real = ids == ids if mask is None else mask.bool()
        if self.hidden is None or all(pair.stream == self.hidden.pairs[0].stream for pair in self.hidden.pairs):
            return {"encoder": real, "decoder": real}  # one stack
        answer = self._asked.get("decoder_attention_mask")
        if answer is None:
            answer = self._asked["decoder_input_ids"] >= 0 if labels is None else labels != IGNORED
        return {"encoder": real, "decoder": answer.bool()}


def check_vocabularies(teacher: nn.Module, model: nn.Module) -> None:
    """Refuse a teacher that reads other tokens, has another head, or knows other classes.

    Raises:
        ModelError: with both numbers or names.
    """
    from ...errors import ModelError
    from ...models.teacher import other_answers

    theirs: Any = getattr(teacher, "config", None)
    ours: Any = getattr(model, "config", None)
    problems = [
        f"teacher: has {a} {what}, the model {b}; a teacher needs the same tokenizer and label set"
        for name, what in (("vocab_size", "words"), ("num_labels", "classes"))
        if isinstance(a := getattr(theirs, name, None), int) and isinstance(b := getattr(ours, name, None), int)
        if a != b
    ]
    if not problems and hasattr(theirs, "to_dict") and hasattr(ours, "to_dict"):
        both = ((_as_written(teacher), theirs), (_as_written(model), ours))
        kinds = ({**config.to_dict(), "architectures": [type(one).__name__]} for one, config in both)
        problems = [f"teacher: {problem}" for problem in other_answers(*kinds)]
    if problems:
        raise ModelError(problems)


def _as_written(model: nn.Module) -> nn.Module:
    """The model itself, where a launcher or ``torch.compile`` has wrapped it."""
    from ...tensors.parameters import unwrapped

    model = unwrapped(model)
    return getattr(model, "_orig_mod", model)
