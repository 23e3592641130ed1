"""SparseGPT: removing single weights column by column, spreading each error to the right. Tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from .least_squares import damping_of


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
    weight, U = _start(W, G, damping, dead)
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


def _start(W: Tensor, G: Tensor, damping: float, dead: float | None) -> tuple[Tensor, Tensor]:
    """Where SparseGPT starts: ``W`` without the weights of dead columns, and ``U``."""
    H = G.to(W.device, torch.float64, copy=True)
    lost = H.diagonal() == 0
    H.diagonal()[lost] = dead or float(H.diagonal().mean()) or 1.0
    H.diagonal().add_(damping_of(H, damping))
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    return W.double().masked_fill(lost, 0.0), U
