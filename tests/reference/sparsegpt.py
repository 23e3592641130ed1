"""SparseGPT as published, from its paper and its pseudo-code; nothing of Composer is used.

Frantar & Alistarh 2023, "SparseGPT: massive language models can be accurately pruned in one-shot", algorithm 1, with
the running Hessian, the threshold of every block and the N:M groups of the code that came with it. In float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tests.reference.inputs import inputs_of, seen_by_rows


def hessian(batches: Iterable[Tensor]) -> Tensor:
    """``2 XᵀX / n`` as a running mean over n sequences of (tokens, in): however long one is, it counts once."""
    H = torch.zeros(())
    for samples, batch in enumerate(batches):
        H = H * (samples / (samples + 1))
        inputs = (2 / (samples + 1)) ** 0.5 * batch.double().T
        H = H + inputs @ inputs.T
    return H


def fasterprune(
    weight: Tensor, H: Tensor, sparsity: float, *, prunen: int = 0, prunem: int = 0, blocksize: int = 128
) -> tuple[Tensor, Tensor]:
    """The mask of what is removed and the weights.

    A block loses what is at or below its threshold: ``int(sparsity * weights) + 1`` weights. ``prunen`` of every
    ``prunem`` go where that is given.
    """
    W, H = weight.clone().double(), H.clone()
    columns = W.shape[1]
    dead = torch.diag(H) == 0
    H[dead, dead] = 1
    W[:, dead] = 0
    H[range(columns), range(columns)] += 0.01 * torch.mean(torch.diag(H))
    H = torch.linalg.cholesky(H)
    H = torch.cholesky_inverse(H)
    Hinv = torch.linalg.cholesky(H, upper=True)
    gone = torch.zeros_like(W, dtype=torch.bool)
    for i1 in range(0, columns, blocksize):
        i2 = min(i1 + blocksize, columns)
        count = i2 - i1
        W1, Q1, Err1 = W[:, i1:i2].clone(), torch.zeros_like(W[:, i1:i2]), torch.zeros_like(W[:, i1:i2])
        Hinv1 = Hinv[i1:i2, i1:i2]
        if prunen == 0:
            tmp = W1**2 / (torch.diag(Hinv1).reshape((1, -1))) ** 2
            mask1 = tmp <= torch.sort(tmp.flatten())[0][int(tmp.numel() * sparsity)]
        else:
            mask1 = torch.zeros_like(W1) == 1
        for i in range(count):
            w, d = W1[:, i], Hinv1[i, i]
            if prunen != 0 and i % prunem == 0:
                tmp = W1[:, i : (i + prunem)] ** 2 / (torch.diag(Hinv1)[i : (i + prunem)].reshape((1, -1))) ** 2
                mask1.scatter_(1, i + torch.topk(tmp, prunen, dim=1, largest=False)[1], True)
            q = w.clone()
            q[mask1[:, i]] = 0
            Q1[:, i] = q
            err1 = (w - q) / d
            W1[:, i:] -= err1.unsqueeze(1).matmul(Hinv1[i, i:].unsqueeze(0))
            Err1[:, i] = err1
        W[:, i1:i2] = Q1
        gone[:, i1:i2] = mask1
        W[:, i2:] -= Err1.matmul(Hinv[i1:i2, i2:])
    return gone, W


@torch.no_grad()
def prune_layers(
    model: nn.Module,
    layers: Sequence[Sequence[str]],
    samples: Sequence[Mapping[str, Tensor]],
    *,
    rate: float = 0.5,
    removed: int = 0,
    of: int = 0,
    sequential: bool = True,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Prune ``model`` in place, layer by layer; masks of what is removed and weights, by the module's name.

    ``rate`` of each matrix, or ``removed`` of every ``of`` neighbours. A ``Conv1D`` stores (in, out) and is turned
    first, as published. Unless ``sequential``, every input is taken from the dense model.
    """
    dense = {} if sequential else inputs_of(model, [name for names in layers for name in names], samples)
    found = {}
    for names in layers:
        inputs = dense or inputs_of(model, names, samples)
        for name in names:
            weight = seen_by_rows(model.get_submodule(name))
            # A threshold takes one weight more than it is asked for.
            asked = (round(rate * weight.numel()) - 0.5) / weight.numel()
            found[name] = fasterprune(weight, hessian(inputs[name]), asked, prunen=removed, prunem=of)
            weight.copy_(found[name][1])
    return found
