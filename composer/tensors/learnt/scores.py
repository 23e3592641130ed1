"""Scores that are learnt with a model, and the masks that follow from them: what a new way to learn derives from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from ...scheme.layout import Target
from ...scheme.shapes import Shape
from ..masks import expand
from ..parameters import set_values
from ..ranking import Keep, spread, totals

REFRESHED = 64
"""How often in a training masks follow the scores: ranking millions of weights costs more than a step."""


class LearntScores:
    """A score for every weight of some parts of a model that learns; a new way to score derives from this.

    What to write: :meth:`begin`, and of :meth:`learn` and :meth:`step` what the way looks at. Nothing else changes with
    it: masks follow by rank (:meth:`masks`); which modules are masked and when is said by rules, as for
    :class:`composer.LearnMasks`; what is masked goes out of the model by ``composer.shrink``.

    A unit's score is the sum of its weights' (Lagunas et al. 2021), so one set of scores serves every shape and rate.

    Attributes:
        amount: what rules say of a part: the ``rate`` that is masked at the end, or the ``penalty`` on what is kept.
        every_step: masks follow the scores in every step, instead of :data:`REFRESHED` times in a training.
        gathered: what :meth:`learn` has added up since the last step, by name; several processes take the mean of it,
            so that it must be a sum over batches.
        thresholds: of each part, the score of a weight (the mean over its unit) below which its units are masked;
            NaN where none is.
    """

    amount: ClassVar[Literal["rate", "penalty"]] = "rate"
    every_step: ClassVar[bool] = False

    def __init__(
        self, parameters: Mapping[str, Tensor], parts: Sequence[tuple[Target, Shape]], steps: int = 10**6
    ) -> None:
        """Scores before the first step.

        Args:
            parameters: by name, as they are stored.
            parts: with the shapes of their units.
            steps: of the training.
        """
        self.parts, self.steps_in_all = list(parts), steps
        self.gathered: dict[str, Tensor] = {}
        self.thresholds = [float("nan")] * len(self.parts)
        self.projections = [p for part, _ in self.parts for p in part.projections]
        self.of = {p.weight: torch.zeros_like(parameters[p.weight], requires_grad=False) for p in self.projections}
        for p in self.projections:
            p.of(self.of[p.weight]).copy_(self.begin(p.of(parameters[p.weight].detach())))

    def begin(self, weight: Tensor) -> Tensor:
        """Scores of one matrix, (out, in), before the first step: 0, where nothing else is said."""
        return torch.zeros_like(weight)

    def learn(self, name: str, gradient: Tensor, weight: Tensor) -> None:
        """See one batch: the gradient of what the model has computed with, and the weight as if nothing were masked.

        Called for each of several accumulated batches. Both are as stored; neither may be kept or changed.
        """

    def step(self, weights: Mapping[str, Tensor]) -> None:
        """Move the scores, once for each step of the optimiser, which comes next.

        Args:
            weights: parameters by name, nothing masked.
        """

    @property
    def alone(self) -> bool:
        """Whether only one process can learn them: what the batches of others say would stay unknown."""
        return type(self).learn is not LearntScores.learn and not self.gathered

    def state(self) -> dict[str, Any]:
        """All that a run which is gone on with must know, between steps: tensors, numbers, and mappings of these."""
        return {"of": self.of}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up such a state."""
        set_values(self.of, state["of"])

    def refreshed_in(self, step: int) -> bool:
        """Whether masks follow the scores in this step of the training, counted from 0."""
        return self.every_step or step % max(1, self.steps_in_all // REFRESHED) == 0

    def masks(self, amounts: Sequence[float | None], draw: Generator | None = None) -> dict[str, Tensor]:
        """What parameters are multiplied with, by name: keep-masks (bool), or gates from 0 to 1; none where all stays.

        Args:
            amounts: of each part, as ``amount`` says, at this time of the training; None: nothing of it is masked.
            draw: for ways that mask by chance while the model learns; None asks for what is measured and kept.
        """
        kept: dict[str, Tensor] = {}
        for i, ((part, shape), amount) in enumerate(zip(self.parts, amounts, strict=True)):
            if amount is None or (not amount and self.amount == "rate"):
                continue
            scores = self.scores_of(i)
            units = self.kept(i, scores, amount, draw)
            gone = scores[units == 0]
            self.thresholds[i] = float(gone.max()) / self.size(i) if gone.numel() else float("nan")
            if units.dtype == torch.bool and not gone.numel():
                continue
            for name, mask in expand(part, spread(part, units, shape)).items():
                kept[name] = kept[name] * mask if name in kept else mask
        return kept

    def kept(self, i: int, scores: Tensor, amount: float, draw: Generator | None) -> Tensor:
        """Which units of part ``i`` stay, in the shape of their scores: here all but the lowest, by rank."""
        [units] = Keep(self.parts[i][1], amount)([scores])
        return units

    def scores_of(self, i: int) -> Tensor:
        """Scores of the units of part ``i``: sums of their weights'."""
        part, shape = self.parts[i]
        return totals(part, [p.of(self.of[p.weight]) for p in part.projections], shape)

    def size(self, i: int) -> int:
        """How many weights a unit of part ``i`` has."""
        part, shape = self.parts[i]
        return part.parameters // shape.units(part)

    @property
    def names(self) -> set[str]:
        """Parameters that can be masked: weights, and biases of the rows of heads and neurons."""
        rows = [p for part, _ in self.parts if part.kind == "attention" for p in part.projections]
        rows += [p for part, _ in self.parts if part.kind == "feed_forward" for p in part.projections[:-1]]
        return {*self.of, *(p.bias_name for p in rows if p.bias_name)}


def ranks(values: Tensor) -> Tensor:
    """The place of each value among all, from 0 for the smallest to 1; ties by index.

    >>> ranks(torch.tensor([[3.0, 1.0], [2.0, 1.0]]))
    tensor([[1.0000, 0.0000],
            [0.6667, 0.3333]])
    """
    flat = values.reshape(-1)
    found = torch.empty_like(flat)
    found[flat.argsort(stable=True)] = torch.linspace(0, 1, flat.numel(), dtype=flat.dtype, device=flat.device)
    return found.view(values.shape)
