"""Keep-masks: made from kept units, applied, held during training, measured.

Masks live outside the model's state dict, by parameter name, True where a weight stays. A removed weight
is exactly 0.0 after every optimiser step: :mod:`.mask_holder` sees to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ..scheme.layout import Layout, Target

Masks = Mapping[str, Tensor]


def expand(target: Target, keep: Tensor) -> dict[str, Tensor]:
    """Masks of a target's parameters from its kept units.

    A linear target's ``keep`` has its weight's shape (out, in). An attention target's has shape (heads,):
    the rows of removed heads go from q, k and v, bias rows with them. A feed-forward's has shape (neurons,):
    rows of all projections but the last, bias rows with them, and columns of the last; several of each where units
    are heads. Masks are shaped as the module stores its parameters, and of the type of ``keep``.
    """
    masks: dict[str, Tensor] = {}
    for p in target.projections:
        weight = masks.setdefault(p.weight, torch.ones(p.stored, dtype=keep.dtype, device=keep.device))
        if target.kind == "linear":
            p.of(weight).copy_(keep)
            continue
        if target.kind == "feed_forward" and p is target.projections[-1]:
            columns = keep.repeat_interleave(p.in_features // target.heads)
            p.of(weight).copy_(columns.expand(p.out_features, p.in_features))
            continue
        rows = keep.repeat_interleave(p.out_features // target.heads)
        p.of(weight).copy_(rows[:, None])
        if p.bias_name:
            bias = masks.setdefault(p.bias_name, torch.ones(p.rows, dtype=keep.dtype, device=keep.device))
            p.bias_of(bias).copy_(rows)
    return masks


def live_columns(units: Target | None, out: Target, masks: Masks) -> Tensor:
    """Which input columns of the projection ``out`` are there still: (in,) bool.

    The columns of a removed head or neuron are dead: what they would read is its output, which is 0, or nothing to a
    column that goes with its neuron.

    Args:
        units: the heads or neurons that ``out`` reads; None where it reads something else.
    """
    width = out.projections[-1].in_features
    first = units.projections[0] if units else None
    mask = masks.get(first.weight) if first else None
    if first is None or mask is None:
        return torch.ones(width, dtype=torch.bool)
    return first.of(mask).any(1)


@torch.no_grad()
def apply(parameters: Mapping[str, Tensor], masks: Masks) -> None:
    """Set every removed weight to exactly 0.0, in place (also NaN and infinity)."""
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)


def gradient_masker(mask: Tensor) -> Callable[[Tensor], Tensor]:
    """A hook for a parameter: its gradient with exactly 0 where a weight is removed, also where it is infinite.

    The product with the mask would make NaN of infinity, which a step in half precision may bring.
    """
    gone = ~mask
    return lambda gradient: gradient.masked_fill(gone, 0.0)


def mask_gradients(parameters: Mapping[str, Tensor], masks: Masks) -> None:
    """Set the gradients that there are of removed weights to exactly 0, in place."""
    for name, mask in masks.items():
        gradient = parameters[name].grad
        if gradient is not None:
            gradient.masked_fill_(~mask, 0.0)


def zeros_as_masks(parameters: Mapping[str, Tensor], targets: Iterable[Target]) -> dict[str, Tensor]:
    """Keep-masks of the zeros that there are: by name, of parameters of these targets that have any.

    A bias is removed where its whole row of the weight is, and itself 0: a head or a neuron that is gone.
    """
    masks: dict[str, Tensor] = {}
    for p in (p for target in targets for p in target.projections):
        weight = parameters[p.weight].detach()
        mask = masks.setdefault(p.weight, torch.ones_like(weight, dtype=torch.bool))
        p.of(mask).copy_(p.of(weight) != 0)
        if p.bias_name:
            bias = parameters[p.bias_name].detach()
            own = masks.setdefault(p.bias_name, torch.ones_like(bias, dtype=torch.bool))
            p.bias_of(own).copy_(p.of(mask).any(1) | (p.bias_of(bias) != 0))
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def zeros_per_target(model: nn.Module, layout: Layout) -> dict[str, tuple[int, int]]:
    """Target path -> (weights that are exactly 0, weights)."""
    parameters = dict(model.named_parameters())
    counts = {}
    for target in layout.targets:
        zeros = sum(int((p.of(parameters[p.weight]) == 0).sum()) for p in target.projections)
        counts[target.path] = (zeros, target.parameters)
    return counts


def violations(parameters: Mapping[str, Tensor], masks: Masks) -> list[str]:
    """Names of parameters in which a removed weight is not exactly 0."""
    return [name for name, mask in masks.items() if bool((parameters[name].detach().cpu()[~mask.cpu()] != 0).any())]
