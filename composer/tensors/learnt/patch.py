"""A model that computes with what is masked, and learns as if it were not (straight through)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from ...errors import ModelError
from ..parameters import set_values
from .scores import LearntScores


class Patch:
    """The parameters that scores are learnt of: masked between :meth:`on` and :meth:`off`, whole for the optimiser.

    Attributes:
        masks: what parameters are multiplied with, by name: keep-masks (bool) or gates.
        before: values of what is named while it is masked; empty while it is not.
    """

    def __init__(self, parameters: Mapping[str, Tensor], scores: LearntScores) -> None:
        """Nothing is masked yet; ``parameters`` by name, as they are stored."""
        self.parameters, self.scores = parameters, scores
        self.masks: dict[str, Tensor] = {}
        self.before: dict[str, Tensor] = {}

    def follow(self, amounts: Sequence[float | None], draw: Generator | None = None) -> None:
        """Take the masks of the scores as they are now (:meth:`.LearntScores.masks`), and put them on."""
        self.off()
        self.masks = self.scores.masks(amounts, draw)
        self.on()

    @torch.no_grad()
    def on(self) -> None:
        """Keep the values of what is named, and multiply; what is on already stays so."""
        if self.before:
            return
        self.before = {name: self.parameters[name].detach().clone() for name in sorted(self.scores.names)}
        for name, mask in self.masks.items():
            if mask.dtype != torch.bool:
                self.parameters[name].mul_(mask)
            self.parameters[name].masked_fill_(mask == 0, 0.0)  # also NaN and infinity

    def off(self) -> None:
        """Give what is named its values back, for the optimiser to move."""
        set_values(self.parameters, self.before)
        self.before = {}

    def masked(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient of a parameter from that of its masked values: what the optimiser sees."""
        mask = self.masks.get(name)
        if mask is None:
            return gradient
        return gradient.masked_fill(~mask, 0.0) if mask.dtype == torch.bool else gradient * mask

    def mask_gradients(self) -> None:
        """The same for all gradients that there are, in place."""
        for name in self.masks:
            parameter = self.parameters[name]
            if parameter.grad is not None:
                parameter.grad = self.masked(name, parameter.grad)

    def leave(self) -> None:
        """Let go of the values behind the masks: what is masked now stays so.

        Raises:
            ModelError: a masked weight is not 0.
        """
        self.before = {}
        for name, mask in self.masks.items():
            if bool((self.parameters[name].detach()[mask == 0] != 0).any()):
                raise ModelError(f"{name}: end of the training: masked weights are not 0; something else moves them")


def drawn_in(step: int, seed: int) -> Generator:
    """What one step draws from: its number and the seed say it all, so that a training that goes on draws the same."""
    return Generator().manual_seed(seed * 1_000_003 + step)
