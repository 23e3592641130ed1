"""Optimal brain surgeon: choosing what to remove while the rest is repaired. Tensors in, tensors out.

The matrices are those of :mod:`composer.tensors.least_squares`: ``W`` (out, in), ``G = XᵀX`` (in, in), ``A = G + λI``
with ``λ = damping · mean(diag G)``. A column ``j`` without input (``G_jj = 0``) is no part of the problem: the rows and
columns of ``A`` that belong to it are taken out, what it costs is 0, and it goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .least_squares import conjugate_gradients, damping_of, has_input

PENDING = 32
"""Rank of the updates that :func:`obs_groups` collects before it applies them with one matrix product."""


FINEST = 0.05
"""Density at which :func:`weight_order` stops to repair; the last weights go in the order they have then."""


class Snapshot(NamedTuple):
    """One stop of :func:`obs_groups`: which groups are kept (groups,), and the repaired matrix (out, in)."""

    keep: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Removal:
    """One greedy pass: the groups in the order in which they went, what each cost, and the stops asked for."""

    order: tuple[int, ...]
    costs: tuple[float, ...]
    snapshots: Mapping[int, Snapshot]


@torch.no_grad()
def obs_groups(W: Tensor, G: Tensor, groups: Tensor, counts: Iterable[int], *, damping: float) -> Removal:
    """Remove groups of input columns one by one, each time the cheapest, and repair what stays exactly.

    Optimal brain surgeon (Hassibi & Stork 1993) by groups, as in ZipLM (Kurtic et al. 2023). With ``H = A⁻¹``,
    group ``S`` costs ``tr(W_S (H_SS)⁻¹ W_Sᵀ)``; removing it sets

        W −= W_S (H_SS)⁻¹ H_S,:        H −= H_:,S (H_SS)⁻¹ H_S,:

    At every stop ``W`` is the masked least squares solution for the columns that are left, with the same damping, so
    one pass passes through every rate and the kept sets are nested. Groups that have no input at all go first, at cost
    0; among equal costs the lowest index goes.

    All in float64. O(in³) for ``H``'s inversion and updates, which are collected and applied by matrix products on
    the columns that are left, and O(removed · out · in) for ``W``'s.

    Args:
        W: (out, in).
        G: ``XᵀX`` (in, in).
        groups: (groups, size) column indices: a head's columns, or single ones. A column in no group stays.
        counts: after how many removals to take a snapshot; the pass ends with the largest.

    Raises:
        ValueError: ``A`` is singular to working precision (hardly any damping, and inputs that depend on each other).
    """
    stops = set(counts)
    state = _GreedyPass(W, G, groups, damping)
    removed: list[tuple[int, float]] = []
    snapshots: dict[int, Snapshot] = {}
    for count in range(max(stops, default=0) + 1):
        if count:
            removed.append(state.remove_cheapest())
        if count in stops:
            snapshots[count] = Snapshot(state.kept(), state.weight())
    return Removal(tuple(group for group, _ in removed), tuple(cost for _, cost in removed), snapshots)


class _GreedyPass:
    """State of :func:`obs_groups`: ``W`` and ``H`` over the columns that are left.

    Columns stand in the order: groups still in play, each with its columns side by side, then columns of no group.
    One removal needs only the rows of ``H`` of one group, and the blocks ``H_SS`` of all. So the blocks are kept up to
    date (``diagonal``), ``H`` itself lags behind by the updates in ``pending``, and at a rank of :data:`PENDING`
    :meth:`_flush` applies them by one matrix product and drops the columns of removed groups.
    """

    def __init__(self, W: Tensor, G: Tensor, groups: Tensor, damping: float) -> None:
        self.like, self.columns = W, W.shape[1]
        self.groups = groups.to(W.device)
        self.alive = torch.arange(len(groups), device=W.device)
        self.rest = torch.ones(self.columns, dtype=torch.bool, device=W.device)
        self.rest[self.groups.flatten()] = False
        order = torch.cat([self.groups.flatten(), self.rest.nonzero().flatten()])
        self.dense, self.read = W.double(), has_input(G).to(W.device)
        self.idle = ~self.read[self.groups].any(1)
        self.H = _inverse(_damped(G.to(W.device), damping), damping)[order][:, order]
        self.W = (self.dense * self.read)[:, order]  # columns without input cost nothing and repair nothing
        self.gone = torch.zeros(len(groups), dtype=torch.bool, device=W.device)
        self._settle()

    def remove_cheapest(self) -> tuple[int, float]:
        """Remove one group; returns its number and its cost."""
        costs = self._costs().masked_fill(self.idle[self.alive], -torch.inf).masked_fill(self.gone, torch.inf)
        g = int((costs == costs.min()).nonzero()[0])
        size = self.groups.shape[1]
        own = slice(g * size, (g + 1) * size)
        rows = self.H[own]
        if self.pending:  # bring these rows, and no others, up to date
            late = torch.cat(self.pending)
            rows = rows - late[:, own].T @ late
        # With H_SS = L Lᵀ and U = L⁻¹ H_S,: the steps are W −= W_S L⁻ᵀ U and H −= Uᵀ U, without an inverse.
        lower = torch.linalg.cholesky(self.diagonal[g])
        update = torch.linalg.solve_triangular(lower, rows, upper=False)  # (size, columns)
        self.W -= torch.linalg.solve_triangular(lower.T, self.W[:, own], upper=True, left=False) @ update
        parts = update[:, : len(self.gone) * size].reshape(size, -1, size)
        self.diagonal -= torch.einsum("tga,tgb->gab", parts, parts)
        self.gone[g] = True
        # What is left of a removed group's own block is 0, which no Cholesky takes; its cost is not looked at again.
        self.diagonal[g] = torch.eye(size, dtype=torch.float64, device=self.W.device)
        self.pending.append(update)
        number = int(self.alive[g])
        if len(self.pending) * size >= PENDING:
            self._flush()
        return number, max(float(costs[g]), 0.0)

    def kept(self) -> Tensor:
        """Bool over all groups."""
        keep = torch.zeros(len(self.groups), dtype=torch.bool, device=self.W.device)
        keep[self.alive[~self.gone]] = True
        return keep

    def weight(self) -> Tensor:
        """The matrix in its own order of columns, exactly 0 where a group is gone."""
        weight = torch.zeros(len(self.W), self.columns, dtype=torch.float64, device=self.W.device)
        stays = ~self.gone.repeat_interleave(self.groups.shape[1])
        places = self.groups[self.alive].flatten()[stays]
        weight[:, places] = self.W[:, : len(stays)][:, stays]
        weight[:, self.rest] = self.W[:, len(stays) :]
        stands = ~self.read & self.rest.index_fill(0, places, True)
        return torch.where(stands, self.dense, weight).to(self.like)

    def _costs(self) -> Tensor:
        """``tr(W_S (H_SS)⁻¹ W_Sᵀ)`` of each group in play."""
        size = self.groups.shape[1]
        if size == 1:
            columns = self.W[:, : len(self.gone)]
            return torch.linalg.vector_norm(columns, dim=0).square() / self.diagonal.flatten()
        blocks = self.W[:, : len(self.gone) * size].T.reshape(-1, size, self.W.shape[0])
        lower = torch.linalg.cholesky(self.diagonal)
        return torch.linalg.solve_triangular(lower, blocks, upper=False).square().sum((1, 2))

    def _flush(self) -> None:
        """Apply the collected updates to ``H`` and drop the columns of removed groups."""
        late = torch.cat(self.pending)
        stays = torch.ones(self.W.shape[1], dtype=torch.bool, device=self.W.device)
        size = self.groups.shape[1]
        stays[: len(self.gone) * size] = ~self.gone.repeat_interleave(size)
        late = late[:, stays]
        self.H = self.H[stays][:, stays].addmm_(late.T, late, alpha=-1)
        self.W = self.W[:, stays]
        self.alive = self.alive[~self.gone]
        self.gone = torch.zeros(len(self.alive), dtype=torch.bool, device=self.W.device)
        self._settle()

    def _settle(self) -> None:
        """Read the blocks of ``H``, which is up to date, anew; nothing is pending."""
        size, groups = self.groups.shape[1], len(self.gone)
        inner = self.H[: groups * size, : groups * size].reshape(groups, size, groups, size)
        self.diagonal = inner.diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()  # (groups, size, size)
        self.pending: list[Tensor] = []


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
    A = _damped(G.to(W.device), damping)
    inverse = _inverse(A, damping)
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


@torch.no_grad()
def sparsegpt(
    W: Tensor,
    G: Tensor,
    removed: int,
    *,
    blocksize: int = 128,
    damping: float = 0.01,
    dead: float | None = None,
    pattern: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """SparseGPT (Frantar & Alistarh 2023): remove weights column by column, spreading each error to the right.

    ``U`` is the upper Cholesky factor of ``A⁻¹`` (``A⁻¹ = UᵀU``). A block of columns is masked when it is reached, by
    ``W²/U_jj²`` over the whole block; the error ``w/U_jj`` of a removed weight is spread through row ``j`` of ``U``.
    O(in³ + out · in²), in float64.

    One thing is not as published, where a threshold per block is used and one weight more goes than was asked for:
    masks are chosen by rank, so that exactly ``removed`` weights go (each block its share, rounded so that the shares
    add up). The weights of dead columns (``G_jj = 0``) become 0, kept or not, as published.

    Args:
        dead: put in the place of ``G_jj`` where that is 0 (published: 1, for ``G = 2XᵀX/n``); None takes the mean
            diagonal, which does not depend on the unit of the inputs.
        pattern: keep so many of so many neighbours along each row, chosen when their first column is reached;
            ``removed`` is not looked at.

    Returns:
        keep-mask (out, in) bool, and the matrix, exactly 0 outside it.
    """
    rows, columns = W.shape
    weight, U = _sparsegpt_start(W, G, damping, dead)
    keep = torch.ones(rows, columns, dtype=torch.bool, device=W.device)
    kept, size = pattern or (0, columns)
    blocksize = max(blocksize - blocksize % size, size) if pattern else blocksize  # no group across two blocks
    for first in range(0, columns, blocksize):
        last = min(first + blocksize, columns)
        if not pattern:
            share = removed * last // columns - removed * first // columns
            scores = (weight[:, first:last] / U.diagonal()[first:last]).square()
            lowest = torch.argsort(scores.flatten(), stable=True)[:share]
            keep[:, first:last] = keep[:, first:last].flatten().index_fill(0, lowest, False).reshape(rows, -1)
        errors = torch.zeros(rows, last - first, dtype=torch.float64, device=W.device)
        for j in range(first, last):
            if pattern and j % size == 0:
                scores = (weight[:, j : j + size] / U.diagonal()[j : j + size]).square()
                lowest = torch.argsort(scores, dim=1, stable=True)[:, : size - kept]
                keep[:, j : j + size] = keep[:, j : j + size].scatter(1, lowest, False)
            error = weight[:, j].masked_fill(keep[:, j], 0.0) / U[j, j]
            weight[:, j:last] -= error[:, None] * U[j, j:last]
            errors[:, j - first] = error
        weight[:, last:] -= errors @ U[first:last, last:]
    return keep, weight.masked_fill(~keep, 0.0).to(W)


def _lowest(scores: Tensor, count: int) -> Tensor:
    """Places of the ``count`` lowest, the lowest first, ties by index: only they are sorted."""
    if not count:
        return torch.zeros(0, dtype=torch.long, device=scores.device)
    bound = scores.kthvalue(count).values
    below, equal = (scores < bound).nonzero().flatten(), (scores == bound).nonzero().flatten()
    return torch.cat([below[torch.argsort(scores[below], stable=True)], equal[: count - len(below)]])


def _sparsegpt_start(W: Tensor, G: Tensor, damping: float, dead: float | None) -> tuple[Tensor, Tensor]:
    """Where SparseGPT starts: ``W`` without the weights of dead columns, and ``U``."""
    H = G.to(W.device, torch.float64, copy=True)
    lost = H.diagonal() == 0
    H.diagonal()[lost] = dead or float(H.diagonal().mean()) or 1.0
    H.diagonal().add_(damping_of(H, damping))
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    return W.double().masked_fill(lost, 0.0), U


def _damped(G: Tensor, damping: float) -> Tensor:
    """``G + λI`` in float64, with rows and columns of the identity where a column has no input."""
    idle = ~has_input(G)
    A = G.to(torch.float64).masked_fill(idle | idle[:, None], 0.0)
    A.diagonal().add_(damping_of(G, damping)).masked_fill_(idle, 1.0)
    return A


def _inverse(A: Tensor, damping: float) -> Tensor:
    factor, singular = torch.linalg.cholesky_ex(A)
    if singular:
        raise ValueError(f"damping: got {damping}; the inputs' moments are singular, a larger one is needed")
    return torch.cholesky_inverse(factor)
