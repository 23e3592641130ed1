"""The closed forms the slow way, in numpy and float64: every row, every candidate, every column by itself.

Nothing of :mod:`composer.tensors` or :mod:`composer.calibration.gram` is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Matrix = np.ndarray


def array(tensor: Tensor) -> Matrix:
    return tensor.detach().double().numpy()


def damped(G: Matrix, damping: float) -> tuple[Matrix, float]:
    """``G + λI`` and ``λ``, damping times the mean of the diagonal where it is not 0."""
    live = [G[i, i] for i in range(len(G)) if G[i, i] != 0]
    strength = damping * sum(live) / len(live)
    return G + strength * np.eye(len(G)), strength


def masked_rows(W: Matrix, A: Matrix, mask: Matrix, right: Matrix | None = None) -> Matrix:
    """Dense normal equations of each row on its kept columns: ``A_SS x = b_S``."""
    solved = np.zeros_like(W)
    for i in range(len(W)):
        kept = np.flatnonzero(mask[i])
        b = (A @ W[i] if right is None else right[i])[kept]
        solved[i, kept] = np.linalg.solve(A[np.ix_(kept, kept)], b)
    return solved


def error(W: Matrix, W_hat: Matrix, X: Matrix) -> float:
    """``‖X(W − Ŵ)ᵀ‖²`` from the inputs themselves."""
    return float(((X @ (W - W_hat).T) ** 2).sum())


def greedy_groups(W: Matrix, A: Matrix, groups: Sequence[Sequence[int]], count: int) -> tuple[list[int], list[float]]:
    """The order in which groups go when each step tries every group and solves again; and what each step costs."""

    def best(gone: list[int]) -> float:
        mask = np.ones_like(W, dtype=bool)
        mask[:, [column for g in gone for column in groups[g]]] = False
        D = W - masked_rows(W, A, mask)
        return float(np.trace(D @ A @ D.T))

    order: list[int] = []
    costs = []
    for _ in range(count):
        before = best(order)
        tried = {g: best([*order, g]) for g in range(len(groups)) if g not in order}
        chosen = min(tried, key=lambda g: tried[g])
        costs.append(tried[chosen] - before)
        order.append(chosen)
    return order, costs


def sparsegpt(W: Matrix, G: Matrix, removed: int, blocksize: int, damping: float) -> tuple[Matrix, Matrix]:
    """Column by column; the inverse of what is to the right is inverted anew for each."""
    W, G = W.copy(), G.copy()
    rows, columns = W.shape
    dead = np.diag(G) == 0
    G[dead, dead] = np.diag(G).mean() or 1.0
    W[:, dead] = 0
    A, _ = damped(G, damping)
    inverses = [np.linalg.inv(A[j:, j:]) for j in range(columns)]
    keep = np.ones_like(W, dtype=bool)
    gone = 0
    for j in range(columns):
        if j % blocksize == 0:
            last = min(j + blocksize, columns)
            share = removed * last // columns - gone
            gone += share
            scores = [(W[i, c] ** 2 / inverses[c][0, 0], i, c) for i in range(rows) for c in range(j, last)]
            for _, i, c in sorted(scores)[:share]:
                keep[i, c] = False
        for i in range(rows):
            if not keep[i, j]:
                W[i, j:] -= W[i, j] / inverses[j][0, 0] * inverses[j][0]
    return keep, np.where(keep, W, 0)


@torch.no_grad()
def t5_inputs(model: Any, pairs: Sequence[tuple[list[int], list[int]]]) -> dict[str, Matrix]:
    """What every projection of a T5 reads, (tokens, in): one unpadded pair at a time, attention written out."""
    rows: dict[str, list[Matrix]] = {}
    for source, target in pairs:
        memory = _stack(model.encoder, "encoder", source, None, rows)
        shifted = [model.config.decoder_start_token_id, *target[:-1]]
        _stack(model.decoder, "decoder", shifted, memory, rows)
    return {path: np.concatenate(parts) for path, parts in rows.items()}


def _stack(stack: Any, name: str, ids: list[int], memory: Tensor | None, rows: dict[str, list[Matrix]]) -> Tensor:
    def saw(path: str, x: Tensor) -> Tensor:
        rows.setdefault(path, []).append(array(x))
        return x

    def attend(module: Any, path: str, x: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        heads = module.n_heads

        def split(y: Tensor) -> Tensor:
            return y.reshape(len(y), heads, -1).transpose(0, 1)

        q = split(module.q(saw(f"{path}.q", x)))
        k, v = split(module.k(saw(f"{path}.k", context))), split(module.v(saw(f"{path}.v", context)))
        weights = torch.softmax(q @ k.transpose(1, 2) + bias, -1)
        mixed = (weights @ v).transpose(0, 1).reshape(len(x), -1)
        return module.o(saw(f"{path}.o", mixed))

    x = stack.embed_tokens(torch.tensor(ids))
    length = len(ids)
    bias = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)[0]
    if memory is not None:
        bias = bias + torch.full((length, length), -torch.inf).triu(1)
    for i, block in enumerate(stack.block):
        for j, layer in enumerate(block.layer):
            path = f"{name}.block.{i}.layer.{j}"
            inner = layer.layer_norm(x)
            if hasattr(layer, "SelfAttention"):
                x = x + attend(layer.SelfAttention, f"{path}.SelfAttention", inner, inner, bias)
            elif hasattr(layer, "EncDecAttention"):
                assert memory is not None
                x = x + attend(layer.EncDecAttention, f"{path}.EncDecAttention", inner, memory, torch.zeros(()))
            else:
                module = layer.DenseReluDense
                hidden = torch.relu(module.wi(saw(f"{path}.DenseReluDense.wi", inner)))
                x = x + module.wo(saw(f"{path}.DenseReluDense.wo", hidden))
    return stack.final_layer_norm(x)
