"""Optimal brain surgeon: what is least missed when the rest makes up for it (Hassibi & Stork 1993; ZipLM, 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .criterion import statistic

if TYPE_CHECKING:
    from torch import Tensor

    from ...calibration.gram import Gram
    from ...scheme.layout import Projection, Target
    from ...scheme.shapes import Shape
    from .criterion import Stats

DAMPING = 0.01
"""Relative to the mean of the moments' diagonal; the repair's default too."""
EXACT = 2**24
"""Up to here float32 counts exactly; scores are kept on disk, and half the bytes do."""


class Obs:
    """Heads and neurons by the greedy pass over the columns of the projection that reads them, single weights by
    the rounds of ``weight_order``.

    With ``A = G + λI`` (in, in) and ``H = A⁻¹`` a head's or neuron's columns ``S`` of that projection's ``W`` (out, in)
    cost ``tr(W_S (H_SS)⁻¹ W_Sᵀ)``; a weight costs ``ŵ_ij² · sqrt((A_jj − λ)(1/H_jj − λ))``, by what it was refitted to
    in the round before. What has no input costs nothing and goes first.

    Moments that know the loss (``--metric loss``; :mod:`composer.calibration.loss_moments`) weigh tokens by what they
    matter to it, and have a metric ``M = RᵀR`` (out, out) of the outputs: a change ``ΔW`` costs ``½ tr(M ΔW G ΔWᵀ)``.
    For heads and neurons the pass then goes over ``R W``. It repairs as it would without ``R``, because all rows keep
    the same columns, but what a group costs is what the loss sees of it. For single weights rows are independent:
    within a row ``M_ii`` is a factor of all its weights' costs, so that token weights alone decide which of them go;
    between rows it decides how many each loses, and the pass goes over ``√M_ii w_i``. What removals in two rows do
    together, ``M_ij``, is left out.

    A score is the place in the order of removal, so ``keep_by_rank`` at any rate gives exactly the stop of that pass
    after as many removals. One pass per target serves all rates, and their masks are nested. See
    :mod:`composer.tensors.brain_surgeon` for the costs that decide.
    """

    name = "obs"
    version = 2
    needs: frozenset[str] = frozenset({"gram"})
    shapes: frozenset[str] = frozenset({"unstructured", "head", "neuron"})

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """(heads,), (neurons,) or (out, in); see :class:`composer.pruning.criteria.criterion.Criterion`."""
        if target.kind == "attention":
            weight, gram = statistic("out", target, self.name, stats)
            return head_order(seen_by_loss(weight, gram), gram, target.heads)
        from ...tensors.weight_order import weight_order

        grams = statistic("gram", target, self.name, stats)
        if target.kind == "feed_forward":
            return head_order(seen_by_loss(weights[-1], grams[-1]), grams[-1], target.heads)
        gram, weight = grams[0], _rows_as_seen(weights[0], grams[0], target.projections[0])
        order = weight_order(_padded(weight, gram), gram.matrix, damping=DAMPING, fixed=int(gram.bias))
        return order.float() if order.numel() <= EXACT else order


def head_order(weight: Tensor, gram: Gram, heads: int) -> Tensor:
    """When the greedy pass removes each head (or neuron), counted from 0: (heads,) float64.

    Args:
        weight: of the projection that reads them, (out, in), a head's columns side by side.
        gram: the moments of its input.
    """
    import torch

    from ...tensors.brain_surgeon import obs_groups

    columns = torch.arange(weight.shape[1], device=weight.device).reshape(heads, -1)
    order = obs_groups(_padded(weight, gram), gram.matrix, columns, [heads], damping=DAMPING).order
    scores = torch.empty(heads, dtype=torch.float64, device=weight.device)
    scores[list(order)] = torch.arange(heads, dtype=torch.float64, device=weight.device)
    return scores


def seen_by_loss(weight: Tensor, gram: Gram) -> Tensor:
    """``R W``: the outputs as the loss sees them, where the moments know it."""
    if gram.metric is None:
        return weight
    from ...calibration.gram import root_of

    return root_of(gram.metric).to(weight.device) @ weight.double()


def _rows_as_seen(weight: Tensor, gram: Gram, projection: Projection) -> Tensor:
    """``√M_ii w_i``: each row by what its output matters to the loss by itself."""
    if gram.metric is None:
        return weight
    return weight * projection.bias_of(gram.metric.diagonal()).clamp_min(0).sqrt().to(weight)[:, None]


def _padded(weight: Tensor, gram: Gram) -> Tensor:
    """A column for the bias, where there is one: its value moves no cost; that it is refitted does."""
    import torch

    return torch.cat([weight, weight.new_zeros(len(weight), 1)], 1) if gram.bias else weight
