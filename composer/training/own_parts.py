"""What each configuration has of its own in joint tuning: biases and norms, or low-rank updates under its mask as well.

All configurations share ``θ`` (:mod:`.joint`). With a part of its own, configuration ``c`` computes with
``(θ + Δ + δ_c) ∘ M``. Slimmable networks need this: norms that see activations of several widths serve none of them
(Yu et al. 2019). ``δ_c`` is a vector for each bias and norm, which then learn nowhere else; with ``lora`` also
``s·BA`` of rank 8 for each target's weight (Hu et al. 2021). It is stored as it is: a difference, a thousandth of a
model.

The model has no modules for it. ``W = (θ + Δ + s·BA) ∘ M`` is put into the weights before each step, so that with
``G``, the gradient with respect to ``W`` masked by ``M``, the chain rule gives ``s·BᵀG`` for A and ``s·GAᵀ`` for B.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..models.in_memory import vectors_of
from ..parallel.ranks import rank_and_size
from ..tensors.parameters import parameters_of
from .settings import RANK, SCALE

if TYPE_CHECKING:
    from .settings import ModelSettings

FACTORS = ("A:", "B:")
"""Beginnings of the keys under which a low-rank update is stored: A (rank, in) and B (out, rank)."""


@dataclass(frozen=True, eq=False)
class OwnPart:
    """What one configuration differs in from what all share.

    Attributes:
        vectors: by name of a bias or norm.
        factors: by name of a weight, as it is stored: A and B.
    """

    vectors: Mapping[str, Tensor]
    factors: Mapping[str, tuple[Tensor, Tensor]]

    def differences(self) -> dict[str, Tensor]:
        """What is to be added to each parameter that differs."""
        return {**self.vectors, **{name: SCALE * (b @ a) for name, (a, b) in self.factors.items()}}

    def tensors(self) -> dict[str, Tensor]:
        """As it is stored; :meth:`of` reads it."""
        named = {
            f"{key}{name}": one for name, some in self.factors.items() for key, one in zip(FACTORS, some, strict=True)
        }
        return {**self.vectors, **named}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> OwnPart:
        """From what :meth:`tensors` gave."""
        a, b = FACTORS
        names = [name.removeprefix(a) for name in tensors if name.startswith(a)]
        factors = {name: (tensors[f"{a}{name}"], tensors[f"{b}{name}"]) for name in names}
        return cls({name: value for name, value in tensors.items() if not name.startswith(FACTORS)}, factors)


@torch.no_grad()
def add_own(parameters: Mapping[str, Tensor], part: OwnPart, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add a part to ``parameters``, in place, under their masks; returns the values of before."""
    before = {}
    for name, difference in part.differences().items():
        before[name] = parameters[name].detach().clone()
        parameters[name].add_(difference.to(parameters[name].device))
        if name in masks:
            parameters[name].masked_fill_(~masks[name].to(parameters[name].device), 0.0)
    return before


class OwnParts(nn.Module):
    """The parts of all configurations while they learn.

    A module, so that it lies in the model's checkpoints and among its best weights; the model never calls it.
    """

    def __init__(self, model: nn.Module, owners: int, weights: Sequence[str], seed: int) -> None:
        """All parts begin as no difference.

        Args:
            owners: how many there are.
            weights: names of the parameters that get low-rank updates.
        """
        super().__init__()
        parameters = parameters_of(model)
        self.names = [name for name in vectors_of(model) if parameters[name].requires_grad]
        self.weights = list(dict.fromkeys(weights))
        draw = torch.Generator().manual_seed(seed)
        self.vectors, self.a, self.b = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for _ in range(owners):
            self.vectors.extend(torch.zeros_like(parameters[name]) for name in self.names)
            for name in self.weights:
                weight = parameters[name]
                rows, columns = weight.shape
                bound = 1 / math.sqrt(columns)  # as peft begins
                uniform = torch.rand(RANK, columns, generator=draw).mul_(2 * bound).sub_(bound)
                self.a.append(uniform.to(weight.device))
                self.b.append(torch.zeros(rows, RANK, device=weight.device))

    def part(self, owner: int) -> OwnPart:
        """One configuration's, as it is now; not copied."""
        return OwnPart(
            {name: vector.detach() for name, vector in zip(self.names, self._of(owner, self.vectors), strict=True)},
            {
                name: (a.detach(), b.detach())
                for name, a, b in zip(self.weights, self._of(owner, self.a), self._of(owner, self.b), strict=True)
            },
        )

    @torch.no_grad()
    def take_gradients(self, owner: int, parameters: Mapping[str, Tensor], frozen: frozenset[str]) -> None:
        """Give a part the gradients that have arisen in the model with it.

        Biases and norms learn here only; ``frozen`` are the weights that others do not share in learning either.
        """
        for name, vector in zip(self.names, self._of(owner, self.vectors), strict=True):
            vector.grad, parameters[name].grad = parameters[name].grad, None
        for name, a, b in zip(self.weights, self._of(owner, self.a), self._of(owner, self.b), strict=True):
            gradient = parameters[name].grad
            if gradient is not None:
                a.grad, b.grad = SCALE * (b.T @ gradient), SCALE * (gradient @ a.T)
            if name in frozen:
                parameters[name].grad = None

    def _of(self, owner: int, some: nn.ParameterList) -> list[Tensor]:
        each = len(self.names) if some is self.vectors else len(self.weights)
        return [some[owner * each + i] for i in range(each)]


@contextmanager
def own_parts(
    model: nn.Module, owners: int, weights: Sequence[str], settings: ModelSettings
) -> Iterator[tuple[OwnParts | None, frozenset[str]]]:
    """Within the body the model holds the parts of so many configurations; None where they own nothing.

    Also yields the names of weights whose gradients are needed for the parts alone.

    Raises:
        RecipeError: several processes, whose gradients are averaged over configurations.
    """
    if settings.own == "none":
        yield None, frozenset()
        return
    if rank_and_size()[1] > 1:
        raise RecipeError(f"--own: got {settings.own!r} with several processes; allowed: one, without a launcher")
    parts = OwnParts(model, owners, weights if settings.own == "lora" else (), settings.seed)
    parameters = parameters_of(model)
    frozen = frozenset(name for name in parts.weights if not parameters[name].requires_grad)
    for name in frozen:
        parameters[name].requires_grad_(True)
    model.add_module("own_parts", parts)
    try:
        yield parts, frozen
    finally:
        del model.own_parts
        for name in frozen:
            parameters[name].requires_grad_(False)


def own_rate(optimizer: Any, model: nn.Module, rate: float) -> None:
    """Let the parts learn at a peak rate of their own; there is nothing to do where there are none."""
    parts = getattr(model, "own_parts", None)
    own = list(parts.parameters()) if isinstance(parts, OwnParts) else []
    if not own:
        return
    known = set(map(id, own))
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in known]
    optimizer.add_param_group({"params": own, "lr": rate, "weight_decay": 0.0})
