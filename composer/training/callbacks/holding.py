"""Which zeros of a model are held: those that it has, or those of a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ModelError
from ...models.folder import BaseModel
from ...models.in_memory import layout_in_memory
from ...tensors.mask_holder import MaskHolder
from ...tensors.masks import zeros_as_masks
from ...tensors.parameters import parameters_of, unwrapped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...scheme.layout import Layout

LEAST = 0.0005
"""Zeros below this share are chance: a model that has no more of them is dense."""


@dataclass(frozen=True, eq=False)
class Sparsity:
    """Zeros of a model that are held.

    Attributes:
        holder: holds them.
        kinds: kind of target (``attention``, ``linear``) -> (zeros, weights), biases not counted.
        targets: how many targets have any, and how many there are.
    """

    holder: MaskHolder
    kinds: Mapping[str, tuple[int, int]]
    targets: tuple[int, int]

    @property
    def share(self) -> float:
        """Zeros among the weights of all targets."""
        zeros, weights = (sum(counts) for counts in zip(*self.kinds.values(), strict=True))
        return zeros / weights

    def figures(self) -> dict[str, float]:
        """For logs: ``sparsity``, and that of each kind where there are several."""
        kinds = {f"sparsity_{kind}": zeros / weights for kind, (zeros, weights) in self.kinds.items()}
        return {"sparsity": self.share} | (kinds if len(kinds) > 1 else {})

    def __str__(self) -> str:
        some, all_ = self.targets
        return f"{some} of {all_} targets have zeros, {self.share:.2%} of their weights; they are held at 0"


def sparsity_of(model: nn.Module, folder: str | Path | None = None) -> Sparsity:
    """The zeros of ``model`` (which a launcher may have wrapped), or those of a folder, to be held in it.

    Weights that the folder has removed and the model has not are set to 0.

    Raises:
        ModelError: hardly any weight is 0, the folder is of another model, or parameters are spread over processes.
    """
    model = unwrapped(model)
    layout, parameters = layout_in_memory(model), parameters_of(model)
    masks = masks_of(folder) if folder else zeros_as_masks(parameters, layout.targets)
    found = _counted(layout, parameters, masks)
    if found.share < LEAST:
        where = f"{folder}" if folder else type(model).__name__
        hint = "" if folder else "; load a pruned model, or name the folder of one: KeepSparse('models/2')"
        raise ModelError(f"{where}: {found.share:.2%} of the weights of its targets are 0: nothing to hold{hint}")
    found.holder.apply()
    return found


def masks_of(folder: str | Path) -> dict[str, Tensor]:
    """Keep-masks of the zeros in a model folder."""
    base = BaseModel(folder)
    return zeros_as_masks(dict(base.load().named_parameters()), base.layout.targets)


def _counted(layout: Layout, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Sparsity:
    kinds: dict[str, tuple[int, int]] = {}
    pruned = 0
    for target in layout.targets:
        gone = sum(int((~p.of(masks[p.weight])).sum()) for p in target.projections if p.weight in masks)
        zeros, weights = kinds.get(target.kind, (0, 0))
        kinds[target.kind] = zeros + gone, weights + target.parameters
        pruned += gone > 0
    return Sparsity(MaskHolder(parameters, masks), kinds, (pruned, len(layout.targets)))
