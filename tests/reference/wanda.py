"""Wanda as published, from its paper and its pseudo-code; nothing of Composer is used.

Sun et al. 2023, "A simple and effective pruning approach for large language models", algorithm 1: the running mean of
squared input norms, sample by sample; |W| times its root; the lowest of every row (or of every M neighbours) go; layer
by layer, each on what comes out of the pruned layers before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tests.reference.inputs import inputs_of, seen_by_rows


class Norms:
    """Running mean over samples of the squared length of each input feature."""

    def __init__(self, columns: int) -> None:
        self.squares, self.samples = torch.zeros(columns), 0

    def add(self, inputs: Tensor) -> None:
        """One sample: (tokens, in)."""
        self.squares *= self.samples / (self.samples + 1)
        self.samples += 1
        self.squares += torch.norm(inputs.T.float(), p=2, dim=1) ** 2 / self.samples


def metric(weight: Tensor, norms: Norms) -> Tensor:
    return weight.abs() * torch.sqrt(norms.squares.reshape(1, -1))


def unstructured(scores: Tensor, ratio: float) -> Tensor:
    """Mask of what is removed: the first ``int(columns * ratio)`` of each row, sorted."""
    gone = torch.zeros_like(scores) == 1
    order = torch.sort(scores, dim=-1, stable=True)[1]
    return gone.scatter_(1, order[:, : int(scores.shape[1] * ratio)], True)


def semi_structured(scores: Tensor, pruned: int, size: int) -> Tensor:
    """Mask of what is removed: ``pruned`` of every ``size`` neighbours of a row."""
    gone = torch.zeros_like(scores) == 1
    for start in range(0, scores.shape[1], size):
        group = scores[:, start : start + size].float()
        gone.scatter_(1, start + torch.topk(group, pruned, dim=1, largest=False)[1], True)
    return gone


@torch.no_grad()
def prune_layers(
    model: nn.Module,
    layers: Sequence[Sequence[str]],
    samples: Sequence[Mapping[str, Tensor]],
    choose: Callable[[Tensor], Tensor],
    *,
    sequential: bool = True,
) -> dict[str, Tensor]:
    """Prune ``model`` in place, layer by layer; returns what was removed, by the module's name, (out, in) each.

    Args:
        layers: names of the linear modules of each layer.
        samples: what the model is called with, one sequence each.
        choose: scores to the mask of what is removed.
        sequential: whether a layer's inputs come out of the pruned layers before it, or all out of the dense model.
    """
    dense = {} if sequential else inputs_of(model, [name for names in layers for name in names], samples)
    removed = {}
    for names in layers:
        inputs = dense or inputs_of(model, names, samples)
        for name in names:
            weight = seen_by_rows(model.get_submodule(name))
            norms = Norms(weight.shape[1])
            for read in inputs[name]:
                norms.add(read)
            removed[name] = choose(metric(weight, norms))
            weight[removed[name]] = 0
    return removed
