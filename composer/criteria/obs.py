"""Optimal brain surgeon: what is least missed when the rest makes up for it (Hassibi & Stork 1993; ZipLM, 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..surgeon import obs_groups, weight_order

if TYPE_CHECKING:
    from ..gram import Gram
    from ..layout import Target
    from .criterion import Stats

DAMPING = 0.01
"""Relative to the mean of the moments' diagonal; the repair's default too."""
EXACT = 2**24
"""Up to here float32 counts exactly; scores are kept on disk, and half the bytes do."""


class Obs:
    """Heads by the greedy pass over the out-projection's columns, single weights by the rounds of ``weight_order``.

    A score is the place in the order of removal, so ``keep_by_rank`` at any rate gives exactly the stop of that pass
    after as many removals. One pass per target serves all rates, and their masks are nested. See
    :mod:`composer.surgeon` for the costs that decide.
    """

    name = "obs"
    needs: frozenset[str] = frozenset({"gram"})

    def score(self, target: Target, weights: list[Tensor], stats: Stats) -> Tensor:
        """(heads,) for attention, (out, in) for linear; see :class:`composer.criteria.criterion.Criterion`."""
        wanted = "gram" if target.kind == "linear" else "out"
        if wanted not in stats:
            raise ValueError(f"{target.path}: criterion 'obs' needs the statistic {wanted!r}; got {sorted(stats)}")
        if target.kind == "linear":
            gram = stats["gram"][0]
            order = weight_order(_padded(weights[0], gram), gram.matrix, damping=DAMPING, fixed=int(gram.bias))
            return order.float() if order.numel() <= EXACT else order
        weight, gram = stats["out"]
        return head_order(weight, gram, target.heads)


def head_order(weight: Tensor, gram: Gram, heads: int) -> Tensor:
    """When the greedy pass removes each head, counted from 0: (heads,) float64.

    Args:
        weight: the out-projection's, (out, in), a head's columns side by side.
        gram: the moments of its input.
    """
    columns = torch.arange(weight.shape[1], device=weight.device).reshape(heads, -1)
    order = obs_groups(_padded(weight, gram), gram.matrix, columns, [heads], damping=DAMPING).order
    scores = torch.empty(heads, dtype=torch.float64, device=weight.device)
    scores[list(order)] = torch.arange(heads, dtype=torch.float64, device=weight.device)
    return scores


def _padded(weight: Tensor, gram: Gram) -> Tensor:
    """A column for the bias, where there is one: its value moves no cost; that it is refitted does."""
    return torch.cat([weight, weight.new_zeros(len(weight), 1)], 1) if gram.bias else weight
