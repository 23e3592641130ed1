"""Removed weights held at exactly 0 while anything else trains the model: the one place where that is done.

Two mechanisms, since neither is enough by itself. A removed weight's gradient is set to 0 as it arises, so that
clipping and moments never see it; and after each step of the optimiser the weight is set to 0 again, because weight
decay, momentum from before, or an optimiser that mixes the entries of a matrix (Muon) moves it all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from ..errors import ModelError
from ..scheme.layout import Target
from .masks import Masks, apply, gradient_masker, violations, zeros_as_masks


class MaskHolder:
    """The removed weights of some parameters. As a context manager it masks gradients within the body."""

    def __init__(self, parameters: Mapping[str, Tensor], masks: Masks) -> None:
        """Nothing is changed yet.

        Args:
            parameters: of the model, by name; those without a mask are not looked at.
            masks: keep-masks (True where a weight stays), shaped like the parameters.

        Raises:
            ModelError: a mask of a parameter that there is not, or of another shape.
        """
        problems = [p for name, mask in masks.items() if (p := _mismatch(name, mask, parameters.get(name)))]
        if problems:
            raise ModelError(problems[:5])
        self.parameters = {name: parameters[name] for name in masks}
        self.masks = {name: mask.to(parameters[name].device) for name, mask in masks.items()}
        self._handles: list[Any] = []

    @classmethod
    def of_zeros(cls, model: nn.Module, targets: Iterable[Target]) -> MaskHolder:
        """Of the zeros that the targets of a model have."""
        parameters = dict(model.named_parameters())
        return cls(parameters, zeros_as_masks(parameters, targets))

    @property
    def weights(self) -> int:
        """How many weights the masked parameters have."""
        return sum(mask.numel() for mask in self.masks.values())

    @property
    def removed(self) -> int:
        """How many of them are removed."""
        return sum(int((~mask).sum()) for mask in self.masks.values())

    def attach(self) -> None:
        """From now on gradients of removed weights are 0; of frozen parameters there are none."""
        for name, mask in self.masks.items():
            if self.parameters[name].requires_grad:
                self._handles.append(self.parameters[name].register_hook(gradient_masker(mask)))

    def detach(self) -> None:
        """Gradients are left alone again."""
        while self._handles:
            self._handles.pop().remove()

    def apply(self) -> None:
        """Set every removed weight to exactly 0: to be called after each step of the optimiser."""
        apply(self.parameters, self.masks)

    def check(self, when: str) -> None:
        """Make sure that all removed weights are exactly 0.

        Args:
            when: what was just done, for the message.

        Raises:
            ModelError: naming a parameter in which one is not.
        """
        if lost := violations(self.parameters, self.masks):
            more = f" (and {len(lost) - 1} more parameters)" if len(lost) > 1 else ""
            raise ModelError(f"{lost[0]}: {when}: removed weights are not 0 any more{more}; something else moves them")

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.detach()


def _mismatch(name: str, mask: Tensor, parameter: Tensor | None) -> str | None:
    if parameter is None:
        return f"{name}: there are zeros to be held, but the model has no parameter of this name"
    if parameter.shape != mask.shape:
        return f"{name}: the model's has shape {tuple(parameter.shape)}, what is to be held {tuple(mask.shape)}"
    return None
