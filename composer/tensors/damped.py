"""The damped moments ``A = G + λI`` of brain surgery, and their inverse, in float64.

``G = XᵀX`` (in, in) are the moments of a layer's inputs, ``λ = damping · mean(diag G)`` as in :mod:`.least_squares`. A
column ``j`` without input (``G_jj = 0``) is no part of the problem: its row and column of ``A`` are the identity's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .least_squares import damping_of, has_input


def damped(G: Tensor, damping: float) -> Tensor:
    """``G + λI`` in float64, with rows and columns of the identity where a column has no input."""
    idle = ~has_input(G)
    A = G.to(torch.float64).masked_fill(idle | idle[:, None], 0.0)
    A.diagonal().add_(damping_of(G, damping)).masked_fill_(idle, 1.0)
    return A


def inverse_of(A: Tensor, damping: float) -> Tensor:
    """``A⁻¹``.

    Raises:
        ValueError: ``A`` is singular to working precision; ``damping``, as it was given, is named.
    """
    factor, singular = torch.linalg.cholesky_ex(A)
    if singular:
        raise ValueError(f"damping: got {damping}; the inputs' moments are singular, a larger one is needed")
    return torch.cholesky_inverse(factor)
