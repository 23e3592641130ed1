"""Optimal brain surgeon for single weights: the order in which they go while the rest is repaired all along.

Tensors in, tensors out; the matrices are those of :mod:`.brain_surgeon`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .damped import damped, inverse_of
from .least_squares import conjugate_gradients, damping_of, has_input

FINEST = 0.05
"""Density at which :func:`weight_order` stops to repair; the last weights go in the order they have then."""


@torch.no_grad()
def weight_order(
    W: Tensor, G: Tensor, *, damping: float, fixed: int = 0, shrink: float = 0.8, iterations: int = 5
) -> Tensor:
    """When each single weight goes if the rest is repaired all along, counted from 0: (out, in - fixed), float64.

    Round by round the weights with the lowest saliency go, until ``shrink`` of those before are left; then ``Ŵ`` is
    refitted on what is left, from where it stood, by a few conjugate gradient iterations. Selecting by the *repaired*
    weights again and again sees what one look at ``W`` cannot. Masks of all rates are nested.

    Removing one weight of a row that has the columns ``S`` left costs ``ŵ_ij² / ((A_SS)⁻¹)_jj`` (Hassibi & Stork
    1993), which lies between ``ŵ_ij² A_jj``, when nothing else moves, and ``ŵ_ij² / H_jj``, when all columns do
    (``H = A⁻¹``). An inverse for every row and round is too dear; saliency is the geometric mean of the two bounds,
    both without the damping term's own share λ. Weights without input go before all others.

    O(in³ + rounds · iterations · out · in²), 14 rounds at ``shrink`` 0.8.

    Args:
        fixed: so many columns at the end are refitted but never removed (the bias).

    Raises:
        ValueError: as :func:`obs_groups`.
    """
    columns = W.shape[1] - fixed
    if not (read := has_input(G).to(W.device)).all():
        return _order_with_idle(W, G.to(W.device), read, fixed, damping=damping, shrink=shrink, iterations=iterations)
    A = damped(G.to(W.device), damping)
    inverse = inverse_of(A, damping)
    bounds = torch.stack([A.diagonal(), 1 / inverse.diagonal()])[:, :columns] - damping_of(G, damping)
    worth = bounds.clamp_min(0).prod(0).sqrt().to(W)
    A, inverse = A.to(W), inverse.to(W)
    right, weight, keep = W @ A, W, torch.ones_like(W, dtype=torch.bool)
    order = torch.zeros(len(W) * columns, dtype=torch.float64, device=W.device)
    there = torch.arange(len(order), device=W.device)  # what is left, by index
    total = len(order)
    while len(there):
        saliency = (weight[:, :columns].square() * worth).flatten()[there]
        last = len(there) <= FINEST * total
        going = there[_lowest(saliency, len(there) - (0 if last else int(shrink * len(there))))]
        first = total - len(there)
        order[going] = torch.arange(first, first + len(going), dtype=torch.float64, device=W.device)
        if last:
            break
        keep[going // columns, going % columns] = False
        there = keep[:, :columns].flatten().nonzero().flatten()
        weight = weight.masked_fill(~keep, 0.0)
        residual = (right - weight @ A).masked_fill(~keep, 0.0)
        goal = 1e-3 * (right * keep).norm(dim=1)
        weight = weight + conjugate_gradients(A, inverse, residual, keep, goal, iterations)[0]
    return order.reshape(len(W), columns)


def _order_with_idle(W: Tensor, G: Tensor, read: Tensor, fixed: int, **options: Any) -> Tensor:
    """:func:`weight_order` where only the columns in ``read`` (in,) have an input: all others first, by index."""
    columns = W.shape[1] - fixed
    order = torch.empty(len(W), columns, dtype=torch.float64, device=W.device)
    own = read[:columns]
    idle = len(W) * int((~own).sum())
    order[:, ~own] = torch.arange(idle, dtype=torch.float64, device=W.device).reshape(len(W), -1)
    if own.any():
        rest = weight_order(W[:, read], G[read][:, read], fixed=int(read[columns:].sum()), **options)
        order[:, own] = idle + rest
    return order


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Places of the ``count`` lowest, the lowest first, ties by index: only they are sorted."""
    if not count:
        return torch.zeros(0, dtype=torch.long, device=scores.device)
    bound = scores.kthvalue(count).values
    below, equal = (scores < bound).nonzero().flatten(), (scores == bound).nonzero().flatten()
    return torch.cat([below[torch.argsort(scores[below], stable=True)], equal[: count - len(below)]])
