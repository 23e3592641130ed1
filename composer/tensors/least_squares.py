"""Closed forms for pruned layers: tensors in, tensors out.

A layer is ``Y = X Wᵀ`` with ``W`` (out, in) and ``X`` (tokens, in); all that is known of ``X`` is ``G = XᵀX``
(in, in). A bias is one more column of ``W``, always kept, and one more column of ones in ``X``
(:func:`with_bias`). Everywhere ``A = G + λI`` with ``λ = damping · mean(diag G)``: damping pulls towards ``W``, never
towards zero, so that zero rate is the identity and a column without input keeps its values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SolveInfo:
    """How a solve went.

    Attributes:
        damping: λ, absolute.
        iterations: products with ``A`` that the slowest row took.
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


def damping_of(G: Tensor, damping: float) -> float:
    """``λ = damping · mean(diag G)``."""
    return damping * float(G.diagonal().double().mean())


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

    Row by row the normal equations are ``A_SS ŵ_S = (A w)_S`` with ``S`` the row's kept columns. They are solved for
    all rows at once by conjugate gradients on ``V -> M ∘ (V A)``, from ``W ∘ M``, preconditioned by
    ``R -> M ∘ (R A⁻¹)``: of the product's eigenvalues none is below 1, and all but as many as columns are removed are
    exactly 1. A row is done when its residual is below ``tolerance`` times its right side, and leaves the products
    then: O(in³ + iterations · rows not done · in²).

    The error ``‖X(W − Ŵ)ᵀ‖²`` of no row is above that of ``W ∘ M``: a row that conjugate gradients did not improve
    is left there. (Moving away from ``W ∘ M`` can only raise the damping term, so a better sum is a better error.)

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
    right = (W - start) @ A if target is None else target.to(W) - start @ A
    residual = right.masked_fill(~mask, 0.0)
    scale = (residual + (start @ A) * mask).norm(dim=1).clamp_min(torch.finfo(W.dtype).tiny)
    step, iterations, unconverged = conjugate_gradients(
        A, preconditioner(A) if inverse is None else inverse, residual, mask, tolerance * scale, max_iterations
    )
    left = residual - (step @ A).masked_fill(~mask, 0.0)
    # The fall of the objective from start to start + step, without the cancellation of two large sums.
    gain = (step * (residual + left)).sum(1)
    worse = ~(gain > 0)
    relative = torch.where(worse, residual.norm(dim=1), left.norm(dim=1)) / scale
    moved = step.any(1)
    info = SolveInfo(strength, iterations, float(relative.max()), unconverged, int((worse & moved).sum()))
    return start + step.masked_fill(worse[:, None], 0.0), info


def conjugate_gradients(
    A: Tensor, inverse: Tensor, residual: Tensor, mask: Tensor, goal: Tensor, max_iterations: int
) -> tuple[Tensor, int, int]:
    """Solve ``M ∘ (V A) = residual`` for all rows, preconditioned by ``R -> M ∘ (R inverse)``.

    ``residual`` is 0 outside the mask. A row stops when its residual is no longer than its ``goal``.

    Returns:
        the solution, the iterations, and how many rows did not reach their goal.
    """
    solution = torch.zeros_like(residual)
    rows = (residual.norm(dim=1) > goal).nonzero().flatten()
    x, r, keep, goal = solution[rows], residual[rows], mask[rows].to(residual), goal[rows]
    p = (r @ inverse) * keep
    energy = (r * p).sum(1)
    iterations = stuck = 0
    while len(rows) and iterations < max_iterations:
        iterations += 1
        product = (p @ A) * keep
        curvature = (p * product).sum(1)
        able = curvature > 0
        alpha = torch.where(able, energy / curvature, 0.0)[:, None]
        x = x + alpha * p
        r = r - alpha * product
        z = (r @ inverse) * keep
        before, energy = energy, (r * z).sum(1)
        p = z + (energy / before)[:, None] * p
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
