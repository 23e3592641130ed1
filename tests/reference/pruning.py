"""Pruning a state dict by hand: heads in numpy, linear weights with ``torch.nn.utils.prune``.

Independent of Composer's layouts, criteria and masks: module names are given by the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune


def l1_linear(weight: Tensor, rate: float) -> Tensor:
    """Keep-mask of ``torch.nn.utils.prune.l1_unstructured`` for one weight matrix."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        module.weight.copy_(weight)
    prune.l1_unstructured(module, "weight", amount=rate)
    return dict(module.named_buffers())["weight_mask"].bool()


def head_scores(weights: Sequence[Tensor], heads: int) -> np.ndarray:
    """Sum of absolute values over each head's rows of all projections, in float64."""
    scores = np.zeros(heads)
    for weight in weights:
        rows = np.abs(weight.detach().double().numpy())
        size = rows.shape[0] // heads
        for head in range(heads):
            scores[head] += rows[head * size : (head + 1) * size].sum()
    return scores


def lowest_heads(weights: Sequence[Tensor], heads: int, rate: float) -> list[int]:
    """The heads that go: the ``round(rate * heads)`` with the smallest scores."""
    return sorted(np.argsort(head_scores(weights, heads), kind="stable")[: round(rate * heads)].tolist())


def prune_state(
    state: Mapping[str, Tensor],
    attention: Mapping[str, tuple[Sequence[str], int, float]],
    linear: Mapping[str, float],
) -> dict[str, Tensor]:
    """A pruned copy of a state dict.

    Args:
        state: the base model's.
        attention: module -> names of its projections, number of heads, rate.
        linear: module -> rate.
    """
    pruned = {name: tensor.clone() for name, tensor in state.items()}
    for path, (names, heads, rate) in attention.items():
        gone = lowest_heads([state[f"{path}.{name}.weight"] for name in names], heads, rate)
        for name in names:
            size = state[f"{path}.{name}.weight"].shape[0] // heads
            for head in gone:
                pruned[f"{path}.{name}.weight"][head * size : (head + 1) * size] = 0.0
                if f"{path}.{name}.bias" in state:
                    pruned[f"{path}.{name}.bias"][head * size : (head + 1) * size] = 0.0
    for path, rate in linear.items():
        keep = l1_linear(state[f"{path}.weight"], rate)
        pruned[f"{path}.weight"][~keep] = 0.0
    return pruned
