"""A few steps of conjugate gradients for many rows that share a matrix and have a mask each. Tensors in, tensors out.

Row by row ``A_SS v_S = r_S``, ``S`` the row's kept columns. All rows go together: an iteration is one product
(rows, in) x (in, in), where :func:`.least_squares.conjugate_gradients`, which ends at a residual, takes two. For a
handful of iterations one is the better bargain (:class:`ScaledMatrix`); in solves to the end it was not quicker.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

LARGEST, ROUNDS = 32, 3
"""How many of a matrix's largest eigenvalues the preconditioner knows, and the subspace iterations that find them."""
SMALL = 128
"""Up to so many columns products are as quick in float32."""


class ScaledMatrix:
    """``A`` (in, in), symmetric and positive semidefinite, as :func:`few_steps` take it.

    It is scaled to a diagonal of ones, ``C = A_ij / sqrt(A_ii A_jj)``, which is Jacobi's preconditioner. Its largest
    eigenvalues, which a few directions common to all inputs make, are known by their eigenvectors: ``C = VEVᵀ + rest``.

    If a mask keeps a share ``p`` of the columns and is free of ``C`` in the sense of free probability, the inverse of
    the kept part is ``(C + ωI)⁻¹`` in the mean, up to factors, with ``ω · tr (C + ωI)⁻¹ = (1 − p) · in``. Real masks
    are near enough: that is the preconditioner, with one value for all eigenvalues of the rest, ``I − V diag(c) Vᵀ``,
    by two thin products. It changes how soon rows are done, not the solution.

    Args:
        A: float32 or float64. In float32 the rest is multiplied by in bfloat16 where the processor is quick at that
            (Intel AMX): off-diagonal elements then differ by up to 2⁻⁹ of their size, less than damping adds.
    """

    def __init__(self, A: Tensor) -> None:
        diagonal = A.diagonal()
        self.scale = torch.where(diagonal > 0, diagonal, 1.0).sqrt()
        self.matrix = A / self.scale / self.scale[:, None]
        self.values, self.vectors = _largest(self.matrix)
        self.width = len(A)
        quick = A.dtype == torch.float32 and A.device.type == "cpu" and self.width > SMALL
        self.rest = self._rest().bfloat16() if quick and has_quick_bfloat16() else None

    def product(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled rows and ``X C``, as quickly as allowed; in bfloat16 the rows are rounded, and those are given."""
        if self.rest is None:
            return X, X @ self.matrix
        rounded = X.bfloat16()
        X = rounded.to(X)
        return X, (rounded @ self.rest).to(X).addmm_((X @ self.vectors) * self.values, self.vectors.T)

    def weights(self, kept: float) -> Tensor:
        """``c`` of the preconditioner for masks that keep so many columns in the mean: one for each eigenvector."""
        others = self.width - len(self.values)
        mean = max((self.width - float(self.values.sum())) / max(others, 1), 1e-6)
        low, high, values = 1e-9, 1e9, self.values.tolist()
        for _ in range(60):  # bisection: the trace grows with ω
            omega = (low * high) ** 0.5
            trace = sum(omega / (value + omega) for value in values) + others * omega / (mean + omega)
            low, high = (low, omega) if trace > self.width - kept else (omega, high)
        return (1 - (mean + omega) / (self.values + omega)).clamp_min(0.0)

    def _rest(self) -> Tensor:
        return self.matrix - (self.vectors * self.values) @ self.vectors.T


def few_steps(matrix: ScaledMatrix, residual: Tensor, keep: Tensor, iterations: int) -> Tensor:
    """So many iterations towards the solution of ``M ∘ (V C) = residual`` for all rows, from 0; all in scaled units.

    ``keep`` is the mask as 0 and 1 in the dtype of ``residual``, which is 0 outside it.
    """
    x, r = torch.zeros_like(residual), residual.clone()
    weights = matrix.weights(float(keep.sum() / max(len(keep), 1)))
    p = _preconditioned(r, keep, matrix, weights)
    energy = (r * p).sum(1)
    for left in reversed(range(iterations)):
        p, product = matrix.product(p)  # a direction is as good as the rounded one, whose product it is
        product *= keep
        curvature = (p * product).sum(1)
        alpha = torch.where(curvature > 0, (p * r).sum(1) / curvature, 0.0)[:, None]
        x.addcmul_(p, alpha)
        if left:
            r.addcmul_(product, alpha, value=-1)
            z = _preconditioned(r, keep, matrix, weights)
            before, energy = energy, (r * z).sum(1)
            p = z.addcmul_(p, torch.where(before > 0, energy / before, 0.0)[:, None])
    return x


@cache
def has_quick_bfloat16() -> bool:
    """Whether the processor has units for products of bfloat16 matrices, five times as quick as float32's."""
    asked: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(asked.get("amx_bf16"))


def _preconditioned(r: Tensor, keep: Tensor, matrix: ScaledMatrix, weights: Tensor) -> Tensor:
    V = matrix.vectors
    return torch.addmm(r, (r @ V) * weights, V.T, alpha=-1).mul_(keep)


def _largest(C: Tensor) -> tuple[Tensor, Tensor]:
    """Largest eigenvalues (k,) and their vectors (in, k), good enough to precondition, by subspace iteration."""
    count = min(LARGEST, len(C) // 8)
    draw = torch.Generator().manual_seed(0)
    bound = ((C != 0).sum(0) > 1)[:, None]  # a column that goes with no other one (without input) must get exactly 0
    vectors = torch.randn(len(C), count, generator=draw, dtype=C.dtype).to(C.device) * bound
    for _ in range(ROUNDS + 1):
        vectors = torch.linalg.qr(C @ vectors).Q
    values, turn = torch.linalg.eigh(vectors.T @ C @ vectors)
    return values.clamp_min(0.0), vectors @ turn * bound
