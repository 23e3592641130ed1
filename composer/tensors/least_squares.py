"""Closed forms for pruned layers: tensors in, tensors out.

A layer is ``Y = X Wᵀ`` with ``W`` (out, in) and ``X`` (tokens, in); all that is known of ``X`` is ``G = XᵀX``
(in, in). A bias is one more column of ``W``, always kept, and one more column of ones in ``X``
(:func:`with_bias`). Everywhere ``A = G + λI`` with ``λ = damping · mean(diag G)`` over the columns that have an input
(:func:`has_input`): damping pulls towards ``W``, never towards zero, so that zero rate is the identity. A column
without input keeps its values, and all others get those that they would have if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

SOLVER = 4
"""Goes up when the same inputs give other bytes: part of the address of everything that is solved for here."""
NARROW = 0.9
"""Share of the columns that may still be kept if leaving out the others is to pay for gathering them."""
PRODUCTS, CALLS = 24, 1e8
"""What conjugate gradients take: products, and all calls besides, in multiplications of a large float32 product."""
FACTOR, GATHER, CALL = 16.0, 1e3, 4e6
"""What a float64 Cholesky factor takes: for each of |S|³ / 6 multiplications, for each of |S|² elements, besides."""


@dataclass(frozen=True)
class SolveInfo:
    """How a solve went.

    Attributes:
        damping: λ, absolute.
        iterations: products with ``A`` that the slowest row took; 0 where all rows were solved directly.
        residual: the largest relative residual of any row at the end.
        unconverged: rows that had not reached the tolerance when the iterations ran out.
        unimproved: rows that were left as they started, because the solution was no better.
    """

    damping: float
    iterations: int
    residual: float
    unconverged: int
    unimproved: int


def with_bias(weight: Tensor, bias: Tensor | None, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``W`` and its keep-mask with the bias, where there is one, as a last column that is always kept."""
    mask = torch.ones_like(weight, dtype=torch.bool) if keep is None else keep.to(weight.device)
    if bias is None:
        return weight, mask
    column = bias.reshape(-1, 1)
    return torch.cat([weight, column], 1), torch.cat([mask, torch.ones_like(column, dtype=torch.bool)], 1)


def has_input(G: Tensor) -> Tensor:
    """Which columns of ``X`` are not all zero, bool (in,): where they are, so is the diagonal of ``G = XᵀX``."""
    return G.diagonal() > 0


def damping_of(G: Tensor, damping: float) -> float:
    """``λ = damping · mean(diag G)`` over the columns that have an input; 0 where none has."""
    return damping * float(G.diagonal().double().sum()) / max(int(has_input(G).sum()), 1)


def wanda_scores(W: Tensor, G: Tensor) -> Tensor:
    """``|W_ij| · sqrt(G_jj)``, (out, in): Sun et al. 2023, "A simple and effective pruning approach for LLMs"."""
    return W.abs() * G.diagonal().clamp_min(0).sqrt().to(W)


def output_error(W: Tensor, W_hat: Tensor, G: Tensor) -> float:
    """``‖X(W − Ŵ)ᵀ‖² = tr((W − Ŵ) G (W − Ŵ)ᵀ)``."""
    return float(_row_errors(W - W_hat, G.to(W)).sum(dtype=torch.float64))


def relative_output_error(W: Tensor, W_hat: Tensor, G: Tensor) -> float:
    """:func:`output_error` over ``‖X Wᵀ‖²``; the plain error where the layer's output is all zero."""
    return output_error(W, W_hat, G) / (output_error(W, torch.zeros_like(W), G) or 1.0)


@torch.no_grad()
def masked_least_squares(
    W: Tensor,
    G: Tensor,
    mask: Tensor,
    *,
    damping: float,
    target: Tensor | None = None,
    inverse: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> tuple[Tensor, SolveInfo]:
    """The best matrix on a given mask: minimise ``‖X(W − Ŵ)ᵀ‖² + λ‖W − Ŵ‖²`` with ``Ŵ`` zero outside ``mask``.

    Row by row the normal equations are ``A_SS ŵ_S = (A w)_S`` with ``S`` the row's kept columns; what is solved for
    is the step from ``W ∘ M`` (:func:`masked_step`). A row is done when its residual is below ``tolerance`` times its
    right side.

    The error ``‖X(W − Ŵ)ᵀ‖²`` of no row is above that of ``W ∘ M``: a row that was not improved is left there.
    (Moving away from ``W ∘ M`` can only raise the damping term, so a better sum is a better error.)

    Args:
        W: (out, in), float32 or float64; the result has its dtype and device.
        G: ``XᵀX`` (in, in).
        mask: (out, in) bool, True where a weight stays.
        damping: λ relative to the mean of G's diagonal.
        target: the right side ``YᵀX̂ + λW`` (out, in), when another output ``Y`` than ``X Wᵀ`` is wanted, or the
            inputs ``X̂`` are not the base model's. ``G`` is then ``X̂ᵀX̂``, λ is :func:`damping_of` it, and what
            is minimised is ``‖Y − X̂Ŵᵀ‖² + λ‖W − Ŵ‖²``.
        inverse: :func:`preconditioner` of ``A``, when several masks share it.
    """
    strength = damping_of(G, damping)
    A = G.to(W, copy=True)
    A.diagonal().add_(strength)
    start = W.masked_fill(~mask, 0.0)
    # A product of differences: where nothing is removed it is exactly 0, and so is the step.
    gap = (W - start) @ A if target is None else target.to(W) - start @ A
    right = ((W @ A if target is None else target.to(W)) * mask).norm(dim=1)
    given = None if inverse is None else lambda: inverse
    solved = masked_step(
        A, gap.masked_fill(~mask, 0.0), mask, goal=tolerance * right, inverse=given, max_iterations=max_iterations
    )
    scale = right.clamp_min(torch.finfo(W.dtype).tiny)
    relative = float((solved.residual / scale).max()) if len(W) else 0.0
    info = SolveInfo(strength, solved.iterations, relative, solved.unconverged, solved.unimproved)
    return start + solved.step, info


@dataclass(frozen=True, eq=False)
class Solved:
    """What :func:`masked_step` found.

    Attributes:
        step: (out, in), exactly 0 outside the mask and in rows that it would not improve.
        gain: by how much the step lowers each row's objective, (out,).
        residual: length of what is left of each row's residual, (out,).
        iterations: of the slowest row; 0 where all were solved directly.
    """

    step: Tensor
    gain: Tensor
    residual: Tensor
    iterations: int
    unconverged: int
    unimproved: int


@torch.no_grad()
def masked_step(
    A: Tensor,
    residual: Tensor,
    mask: Tensor,
    *,
    goal: Tensor,
    inverse: Callable[[], Tensor] | None = None,
    max_iterations: int = 1000,
) -> Solved:
    """Solve ``M ∘ (D A) = residual`` for ``D`` on the mask, row by row the minimum of ``D A Dᵀ − 2 D residualᵀ``.

    Columns that no row keeps are left out of all products. Rows that share their kept columns ``S`` (all of them
    where heads, neurons or columns go, a few where blocks go) are solved together by one float64 Cholesky factor of
    ``A_SS``, where that is quicker: O(|S|³ + rows · |S|²). All others by :func:`conjugate_gradients`:
    O(iterations · rows not done · in²).

    Args:
        residual: (out, in), 0 outside the mask.
        goal: (out,), the length of the residual at which a row is done.
        inverse: gives the :func:`preconditioner` of ``A``, which others use too; asked only where one is needed.
    """
    inverse = inverse or partial(preconditioner, A)
    kept = mask.any(0).nonzero().flatten()
    if len(kept) < NARROW * mask.shape[1]:
        parts = A[kept][:, kept], residual[:, kept], mask[:, kept]
        some = masked_step(*parts, goal=goal, inverse=partial(_block, inverse, kept), max_iterations=max_iterations)
        return replace(some, step=torch.zeros_like(residual).index_copy_(1, kept, some.step))
    step, iterations, unconverged = torch.zeros_like(residual), 0, 0
    open_rows = residual.norm(dim=1) > goal
    for rows in _sharing(mask, open_rows):
        if (found := _direct(A, residual[rows], mask[rows[0]])) is not None:
            step[rows], open_rows[rows] = found, False
    rows = open_rows.nonzero().flatten()
    if len(rows):
        step[rows], iterations, unconverged = conjugate_gradients(
            A, inverse(), residual[rows], mask[rows], goal[rows], max_iterations
        )
    left = residual - (step @ A).masked_fill(~mask, 0.0)
    # The fall of the objective from 0 to the step, without the cancellation of two large sums.
    gain = (step * (residual + left)).sum(1)
    worse = ~(gain > 0)
    unimproved = int((worse & step.any(1)).sum())
    step = step.masked_fill(worse[:, None], 0.0)
    length = torch.where(worse, residual.norm(dim=1), left.norm(dim=1))
    return Solved(step, gain.masked_fill(worse, 0.0), length, iterations, unconverged, unimproved)


def _block(matrix: Callable[[], Tensor], kept: Tensor) -> Tensor:
    return matrix()[kept][:, kept]


def _sharing(mask: Tensor, wanted: Tensor) -> Iterator[Tensor]:
    """Groups of ``wanted`` rows (out,) with equal masks, each (rows,), if one Cholesky factor for each is quicker."""
    rows = wanted.nonzero().flatten()
    if not len(rows):
        return
    kept, of = torch.unique(mask[rows], dim=0, return_inverse=True)
    size = kept.sum(1, dtype=torch.float64)
    factors = float((FACTOR / 6 * size**3 + GATHER * size**2 + CALL).sum())
    if factors < PRODUCTS * len(rows) * mask.shape[1] ** 2 + CALLS:
        for group in range(len(kept)):
            yield rows[of == group]


def _direct(A: Tensor, residual: Tensor, kept: Tensor) -> Tensor | None:
    """``residual_S (A_SS)⁻¹`` for rows that all keep the columns ``S``; None where ``A_SS`` is singular."""
    S = kept.nonzero().flatten()
    if not len(S):
        return torch.zeros_like(residual)
    factor, singular = torch.linalg.cholesky_ex(A[S][:, S].double())
    if singular:
        return None
    step = torch.cholesky_solve(residual[:, S].double().T, factor).T
    return torch.zeros_like(residual).index_copy_(1, S, step.to(residual))


def conjugate_gradients(
    A: Tensor,
    inverse: Tensor,
    residual: Tensor,
    mask: Tensor,
    goal: Tensor,
    max_iterations: int,
) -> tuple[Tensor, int, int]:
    """Solve ``M ∘ (V A) = residual`` for all rows from 0, preconditioned by ``R -> M ∘ (R inverse)``.

    With ``A⁻¹`` none of the product's eigenvalues is below 1, and all but as many as columns are removed are exactly
    1. ``residual`` is 0 outside the mask. A row is done when its residual is no longer than its ``goal``, and leaves
    the products then.

    Returns:
        the solution, the iterations, and how many rows were not done.
    """
    solution = torch.zeros_like(residual)
    rows = (residual.norm(dim=1) > goal).nonzero().flatten()
    x, r, keep, goal = solution[rows], residual[rows], mask[rows].to(residual), goal[rows]
    p = (r @ inverse).mul_(keep)
    energy = (r * p).sum(1)
    iterations = stuck = 0
    while len(rows) and iterations < max_iterations:
        iterations += 1
        product = (p @ A).mul_(keep)
        curvature = (p * product).sum(1)
        able = curvature > 0
        alpha = torch.where(able, energy / curvature, 0.0)
        x += alpha[:, None] * p
        r -= product.mul_(alpha[:, None])
        z = torch.mm(r, inverse, out=product).mul_(keep)
        before, energy = energy, (r * z).sum(1)
        p.mul_((energy / before)[:, None]).add_(z)
        going = able & (r.norm(dim=1) > goal)
        if not going.all():
            stuck += int((~able).sum())
            solution[rows[~going]] = x[~going]
            rows, x, r, p, keep = rows[going], x[going], r[going], p[going], keep[going]
            energy, goal = energy[going], goal[going]
    solution[rows] = x
    return solution, iterations, len(rows) + stuck


def preconditioner(A: Tensor) -> Tensor:
    """``A⁻¹``, or the inverse of its diagonal where ``A`` is singular: what it is changes speed, not the result."""
    factor, singular = torch.linalg.cholesky_ex(A)
    if not singular:
        return torch.cholesky_inverse(factor)
    diagonal = A.diagonal()
    return torch.diag(torch.where(diagonal > 0, 1 / diagonal, 0.0))  # a column without input stays put


def _row_errors(D: Tensor, G: Tensor) -> Tensor:
    return ((D @ G) * D).sum(1).clamp_min(0)
