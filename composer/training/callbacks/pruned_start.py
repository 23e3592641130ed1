"""Masks that begin where a pruned model ends: what was repaired or learnt in its folder is where learning goes on.

The model computes with the folder's weights from the first step on, zeros included. Behind its zeros stand the values
that the model in memory has there (the base model's): they score, and can come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ModelError
from ...models.folder import BaseModel
from ...scheme.rules import Ruled
from ...tensors.learnt.scores import LearntScores
from ...tensors.parameters import set_values
from ...tensors.ranking import totals


@dataclass(frozen=True, eq=False)
class PrunedStart:
    """A pruned model's weights, and what stands behind its zeros.

    Attributes:
        folder: of the pruned model, for messages.
        weights: its parameters by name, on the device of the model that learns.
        own: the parameters of that model, by name.
    """

    folder: Path
    weights: Mapping[str, Tensor]
    own: Mapping[str, Tensor]

    @classmethod
    def of(cls, folder: str | Path, own: Mapping[str, Tensor]) -> PrunedStart:
        """Read a folder.

        Raises:
            ModelError: it is of another model, or shrunk.
        """
        base = BaseModel(folder)
        weights = {name: p.detach() for name, p in base.load().named_parameters()}
        for name, parameter in own.items():
            other = weights.get(name)
            if other is None or other.shape != parameter.shape:
                found = "nothing" if other is None else f"{tuple(other.shape)}"
                raise ModelError(
                    f"LearnMasks: start: {base.folder}: {name}: got {found}; the model that learns has"
                    f" {tuple(parameter.shape)}; allowed: a masked folder of the same model"
                )
        return cls(base.folder, {n: w.to(own[n].device, own[n].dtype) for n, w in weights.items() if n in own}, own)

    def begun(self, ruled: Sequence[Ruled]) -> list[Ruled]:
        """The rules with their schedules begun at the share of units that is wholly gone in the folder.

        Raises:
            ModelError: no unit is.
        """
        found = [replace(one, begin=self._gone(one)) for one in ruled]
        if not any(one.begin for one in found):
            raise ModelError(
                f"LearnMasks: start: {self.folder}: of what the rules name no unit is gone; allowed: a model that was"
                " pruned by these granularities"
            )
        return found

    def _gone(self, one: Ruled) -> float:
        kept = [p.of(self.weights[p.weight]).ne(0).float() for p in one.part.projections]
        return float(totals(one.part, kept, one.shape).eq(0).double().mean())

    def ordered(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Weights from which scores begin: the folder's, and for its zeros the model's own below all of these."""
        found = {}
        for name in names:
            weight, own = self.weights[name], self.own[name].detach()
            kept = weight != 0
            least = weight[kept].abs().min() if kept.any() else own.new_ones(())
            most = own[~kept].abs().max() if not kept.all() else own.new_zeros(())
            found[name] = torch.where(kept, weight, own * (least / (2 * most)).clamp(max=1.0) if most else own)
        return found

    def put_into(self, scores: LearntScores, ruled: Sequence[Ruled]) -> None:
        """Give the model the folder's weights; where its units are gone it keeps its own, to be masked."""
        for name, mask in scores.masks([one.at(0.0) for one in ruled]).items():
            weight = self.weights[name]
            weight.copy_(torch.where((mask != 0) | (weight != 0), weight, self.own[name]))
        set_values(self.own, self.weights)
