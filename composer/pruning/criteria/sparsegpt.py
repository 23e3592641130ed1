"""SparseGPT: columns from left to right, each error made good to its right (Frantar & Alistarh 2023).

``H = 2G/n`` with ``G = XᵀX`` (in, in) over all tokens of n sequences, as the published code counts them; dead columns
get ``H_jj = 1`` and weights 0; 1 % of the mean diagonal is added. With ``H⁻¹ = UᵀU`` a weight costs ``w_ij² / U_jj²``.
See :func:`composer.tensors.sparsegpt.sparsegpt` for the sweep and its one difference: exact counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .criterion import MovingCriterion, Stats, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...tensors.ranking import Keep

DAMPING = 0.01
BLOCKSIZE = 128


class SparseGPT(MovingCriterion):
    """Moves what it keeps: :meth:`prune` gives weights with the mask; there are no scores beside them."""

    name = "sparsegpt"
    needs: frozenset[str] = frozenset({"gram"})
    shapes: frozenset[str] = frozenset({"unstructured", "N:M"})

    def prune(
        self, target: Target, weights: list[Tensor], stats: Stats, keep: Keep
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of one projection, (out, in); see :class:`composer.pruning.criteria.criterion.MovingCriterion`."""
        import torch

        from ...tensors.sparsegpt import sparsegpt

        gram = statistic("gram", target, self.name, stats)[0]
        H, dead = 2 / gram.examples * gram.inputs.double(), keep.dead
        if dead is not None:  # what a removed head would have given: the columns read zeros
            dead = dead.to(H.device)
            H = H.masked_fill(dead, 0.0).masked_fill(dead[:, None], 0.0)
        pattern = (keep.shape.a, keep.shape.b) if keep.shape.kind == "N:M" else None
        removed = keep.shape.removed(target, keep.rate)
        mask, weight = sparsegpt(
            weights[0], H, removed, blocksize=BLOCKSIZE, damping=DAMPING, dead=1.0, pattern=pattern
        )
        if dead is not None:  # what is kept there does nothing, but it was not removed
            weight = torch.where(mask & dead.to(mask.device), weights[0], weight)
        return [weight], [mask]
