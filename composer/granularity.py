"""From scores to an exact keep-mask: by rank, never by threshold.

A threshold removes 33 where 32 were asked and everything where all scores tie; a rank removes exactly
``round(rate * units)``, and ties go by index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def keep_by_rank(scores: Tensor, rate: float) -> Tensor:
    """Keep-mask (bool, shape of ``scores``) that removes the ``round(rate * n)`` lowest scores.

    Among equal scores the one with the lower (row-major) index goes first. NaN scores are an error.

    >>> import torch
    >>> keep_by_rank(torch.tensor([3.0, 1.0, 1.0, 2.0]), 0.5)
    tensor([ True, False, False,  True])
    """
    import torch

    flat = scores.reshape(-1)
    if torch.isnan(flat).any():
        raise ValueError("scores hold NaN; they cannot be ranked")
    removed = round(rate * flat.numel())
    keep = torch.ones(flat.numel(), dtype=torch.bool, device=flat.device)
    keep[torch.argsort(flat, stable=True)[:removed]] = False
    return keep.reshape(scores.shape)
