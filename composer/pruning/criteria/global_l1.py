"""Magnitude with one threshold over all targets (Han et al. 2015; Blalock et al. 2020 on why it is the one to beat).

How much each target gives follows from the weights: :func:`removals` counts it when the scheme is made
(:mod:`composer.pruning.global_rates`), so that a node still says its own rate. Within a target the ranking is then
l1's, and the masks of all targets together are those of one ranking over all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .l1 import L1

if TYPE_CHECKING:
    from torch import Tensor


class GlobalL1(L1):
    """Score of a weight: ``|w|``, (out, in), comparable across targets."""

    name = "global_l1"
    shapes: frozenset[str] = frozenset({"global"})


def removals(weights: Sequence[Sequence[Tensor]], removed: int) -> list[int]:
    """How many weights of each target, given by its (out, in) matrices, are among the ``removed`` smallest of all.

    Exact: ties go by the order of the targets, then of their matrices, then by index.
    """
    import torch

    flat = [torch.cat([w.detach().abs().reshape(-1) for w in matrices]) for matrices in weights]
    ends = torch.tensor([len(one) for one in flat]).cumsum(0)
    lowest = torch.argsort(torch.cat(flat), stable=True)[:removed].cpu()
    return [int(n) for n in torch.bincount(torch.searchsorted(ends, lowest, right=True), minlength=len(flat))]
