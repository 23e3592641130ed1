"""Matrix by matrix: what each takes dense, and what it takes as it is in the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .clock import in_turn
from .measure import Clock
from .records import LayerRow
from .statistics import Ratio, Spread

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

NO_KERNEL = (
    "No kernel of this processor skips zeros, 2:4 or others: masked matrices are timed as they are, zeros multiplied. "
    "What is faster is what has fewer rows and columns (compose shrink)."
)
ON_GPU = "Matrices with a 2:4 pattern run in the GPU's sparse kernel, in float16 like the dense ones beside them."


@dataclass(frozen=True)
class _Pair:
    path: str
    dense: Tensor
    own: Tensor
    sparsity: float
    kind: str

    @property
    def alike(self) -> tuple[Any, ...]:
        """What takes the same time: zeros are multiplied like other weights."""
        return (tuple(self.dense.shape), tuple(self.own.shape), self.kind)


def time_layers(
    models: Sequence[nn.Module], tokens: int, rounds: int, device: torch.device, clock: Clock
) -> tuple[tuple[LayerRow, ...], str]:
    """Each matrix of the last model against the first one's, or against itself without zeros where there is one model.

    Matrices of equal shapes and kinds are timed once.

    Args:
        tokens: rows that are multiplied at once.

    Returns:
        A row for each kind of matrix, and what must be said of them.
    """
    pairs = sorted(_pairs(models, device), key=lambda pair: str(pair.alike))
    rows = [_row(list(same), tokens, rounds, device, clock) for _, same in groupby(pairs, lambda pair: pair.alike)]
    return tuple(rows), ON_GPU if device.type == "cuda" else NO_KERNEL


def _row(same: Sequence[_Pair], tokens: int, rounds: int, device: torch.device, clock: Clock) -> LayerRow:
    import torch
    from torch.nn import functional as F

    pair = same[0]
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(tokens, w.shape[1], generator=generator).to(device, dtype) for w in (pair.dense, pair.own)]
    weights: list[Tensor] = [pair.dense.to(device, dtype), pair.own.to(device, dtype)]
    if pair.kind == "2:4":
        with warnings.catch_warnings():  # that its interface may change
            warnings.simplefilter("ignore", UserWarning)
            weights[1] = torch.sparse.to_sparse_semi_structured(weights[1])
    with torch.inference_mode():
        works = [partial(F.linear, x, w) for x, w in zip(inputs, weights, strict=True)]
        spent = [[getattr(one, clock) for one in own] for own in in_turn(works, rounds, device)]
    dense, own = (Spread.of(seconds) for seconds in spent)
    sparsity = sum(p.sparsity for p in same) / len(same)
    shapes = _shape(pair.dense), _shape(pair.own)
    return LayerRow(pair.path, len(same), *shapes, sparsity, pair.kind, dense, own, Ratio.of(*spent))


def _shape(weight: Tensor) -> tuple[int, int]:
    return int(weight.shape[0]), int(weight.shape[1])


def _pairs(models: Sequence[nn.Module], device: torch.device) -> Iterator[_Pair]:
    import torch

    first, last = _matrices(models[0]), _matrices(models[-1])
    for path, own in last.items():
        dense = first.get(path)
        if dense is None:
            continue
        zeros = float((own == 0).float().mean())
        smaller = own.shape != dense.shape
        sparse = device.type == "cuda" and not smaller and _two_of_four(own)
        if len(models) == 1:
            dense = torch.where(own == 0, torch.full_like(own, 0.01), own)
        yield _Pair(path, dense, own, zeros, "smaller" if smaller else "2:4" if sparse else "masked")


def _matrices(model: nn.Module) -> dict[str, Tensor]:
    """Weights of all matrix products by path, (out, in); a head that is tied to an embedding too."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    found = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[path] = module.weight.detach()
        elif isinstance(module, Conv1D):
            found[path] = module.weight.detach().T.contiguous()
    return found


def _two_of_four(weight: Tensor) -> bool:
    """Whether of each four weights of a row at most two are other than 0, and the kernel takes the shape."""
    rows, columns = weight.shape
    if rows % 32 or columns % 64:
        return False
    return bool(((weight.reshape(rows, -1, 4) != 0).sum(-1) <= 2).all())
