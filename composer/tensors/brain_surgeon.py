"""Optimal brain surgeon by groups: choosing which columns to remove while the rest is repaired exactly.

Tensors in, tensors out. The matrices are those of :mod:`.least_squares` and :mod:`.damped`: ``W`` (out, in),
``G = XᵀX`` (in, in), ``A = G + λI``. A group without input costs nothing, and goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .damped import damped, inverse_of
from .least_squares import has_input

PENDING = 32
"""Rank of the updates that :func:`obs_groups` collects before it applies them with one matrix product."""
DROPPED = 0.1
"""Share of the groups in play that must be gone before their columns are left out of the matrices: that copies them."""


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


class Update(NamedTuple):
    """What removals do: ``H −= UᵀU`` with ``U`` (rank, columns), the first, and ``W −= C U`` with ``C`` (out, rank)."""

    H: Tensor
    W: Tensor


class _GreedyPass:
    """State of :func:`obs_groups`: ``W`` and ``H`` over the columns that are left.

    Columns stand in the order: groups still in play, each with its columns side by side, then columns of no group.
    One removal needs only the rows of ``H`` and the columns of ``W`` of one group, and of all others the blocks
    ``H_SS`` and ``W_SᵀW_S``. So these blocks are kept up to date (``diagonal``, ``grams``), ``H`` and ``W`` themselves
    lag behind by the updates in ``pending``, and at a rank of :data:`PENDING` :meth:`_flush` applies them by matrix
    products: ``W`` is read once for each removal, and not written.
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
        self.H = inverse_of(damped(G.to(W.device), damping), damping)[order][:, order]
        self.W = (self.dense * self.read)[:, order]  # columns without input cost nothing and repair nothing
        self.gone = torch.zeros(len(groups), dtype=torch.bool, device=W.device)
        self._settle()

    def remove_cheapest(self) -> tuple[int, float]:
        """Remove one group; returns its number and its cost."""
        costs = self._costs().masked_fill(self.idle[self.alive], -torch.inf).masked_fill(self.gone, torch.inf)
        g = int((costs == costs.min()).nonzero()[0])
        size = self.groups.shape[1]
        own = slice(g * size, (g + 1) * size)
        rows, columns, late = self.H[own], self.W[:, own], self._late()
        if late:  # bring these rows and columns, and no others, up to date
            rows = rows - late.H[:, own].T @ late.H
            columns = columns - late.W @ late.H[:, own]
        # With H_SS = L Lᵀ, U = L⁻¹ H_S,: and C = W_S L⁻ᵀ the steps are W −= C U and H −= Uᵀ U, without an inverse.
        lower = torch.linalg.cholesky(self.diagonal[g])
        update = torch.linalg.solve_triangular(lower, rows, upper=False)  # (size, columns)
        change = torch.linalg.solve_triangular(lower.T, columns, upper=True, left=False)  # (out, size)
        self._move_blocks(update, change, late)
        self.gone[g] = True
        # What is left of a removed group's own block is 0, which no Cholesky takes; its cost is not looked at again.
        self.diagonal[g] = torch.eye(size, dtype=torch.float64, device=self.W.device)
        self.pending.append(Update(update, change))
        number = int(self.alive[g])
        if len(self.pending) * size >= PENDING:
            self._flush()
        return number, max(float(costs[g]), 0.0)

    def _late(self) -> Update | None:
        """All pending updates as one of higher rank."""
        if not self.pending:
            return None
        return Update(torch.cat([one.H for one in self.pending]), torch.cat([one.W for one in self.pending], 1))

    def _move_blocks(self, update: Tensor, change: Tensor, late: Update | None) -> None:
        """Bring the blocks of all groups up to date: ``H −= Uᵀ U``, and ``WᵀW`` by ``W −= C U``."""
        size = self.groups.shape[1]
        inner = change.T @ self.W  # CᵀW
        if late:
            inner -= (change.T @ late.W) @ late.H
        # (W − C U)ᵀ(W − C U) = WᵀW − UᵀV − VᵀU with V = CᵀW − ½ CᵀC U.
        inner -= 0.5 * (change.T @ change) @ update
        u, v = (some[:, : len(self.gone) * size].reshape(size, -1, size) for some in (update, inner))
        self.diagonal -= torch.einsum("tga,tgb->gab", u, u)
        both = torch.einsum("tga,tgb->gab", u, v)
        self.grams -= both + both.mT

    def kept(self) -> Tensor:
        """Bool over all groups."""
        keep = torch.zeros(len(self.groups), dtype=torch.bool, device=self.W.device)
        keep[self.alive[~self.gone]] = True
        return keep

    def weight(self) -> Tensor:
        """The matrix in its own order of columns, exactly 0 where a group is gone."""
        weight = torch.zeros(len(self.W), self.columns, dtype=torch.float64, device=self.W.device)
        stays = ~self.gone.repeat_interleave(self.groups.shape[1])
        places, late = self.groups[self.alive].flatten()[stays], self._late()
        now = self.W - late.W @ late.H if late else self.W
        weight[:, places] = now[:, : len(stays)][:, stays]
        weight[:, self.rest] = now[:, len(stays) :]
        stands = ~self.read & self.rest.index_fill(0, places, True)
        return torch.where(stands, self.dense, weight).to(self.like)

    def _costs(self) -> Tensor:
        """``tr(W_S (H_SS)⁻¹ W_Sᵀ)`` of each group in play."""
        if self.groups.shape[1] == 1:
            return (self.grams / self.diagonal).flatten()
        solved = torch.cholesky_solve(self.grams, torch.linalg.cholesky(self.diagonal))
        return solved.diagonal(dim1=1, dim2=2).sum(1)

    def _flush(self) -> None:
        """Apply the collected updates to ``H`` and ``W``; drop the columns of removed groups once they are many."""
        late = self._late()
        assert late is not None
        self.H.addmm_(late.H.T, late.H, alpha=-1)
        self.W.addmm_(late.W, late.H, alpha=-1)
        if int(self.gone.sum()) > DROPPED * len(self.gone):
            stays = torch.ones(self.W.shape[1], dtype=torch.bool, device=self.W.device)
            size = self.groups.shape[1]
            stays[: len(self.gone) * size] = ~self.gone.repeat_interleave(size)
            self.H, self.W = self.H[stays][:, stays], self.W[:, stays]
            self.alive = self.alive[~self.gone]
            self.gone = torch.zeros(len(self.alive), dtype=torch.bool, device=self.W.device)
        self._settle()

    def _settle(self) -> None:
        """Read the blocks of ``H`` and ``WᵀW``, which are up to date, anew; nothing is pending."""
        size, groups = self.groups.shape[1], len(self.gone)
        inner = self.H[: groups * size, : groups * size].reshape(groups, size, groups, size)
        self.diagonal = inner.diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()  # (groups, size, size)
        self.diagonal[self.gone] = torch.eye(size, dtype=torch.float64, device=self.W.device)
        columns = self.W[:, : groups * size]
        if size == 1:
            self.grams = torch.linalg.vector_norm(columns, dim=0).square().reshape(groups, 1, 1)
        else:
            blocks = columns.T.reshape(groups, size, len(self.W))
            self.grams = blocks @ blocks.mT
        self.pending: list[Update] = []
