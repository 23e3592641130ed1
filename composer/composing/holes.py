"""Holes: single zeros in heads and neurons that are left. They cost as much time as any weight, so they may be filled.

With noise, as published (nn_pruning's "densify"); or, towards a base model, by least squares: every sublayer's last
projection is refitted on what it really gets (:mod:`.refit`), with its holes free. Then training goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ..scheme.layout import Layout, Projection, Target
from ..tensors.masks import Masks

NOISE = 0.1
"""What fills holes, as a share of the standard deviation of the matrix's weights that are not 0."""


def fill_with_noise(parameters: Mapping[str, Tensor], targets: Iterable[Target], seed: int) -> int:
    """Noise for zeros in rows and columns that have other weights; returns how many there were."""
    draw, filled = torch.Generator().manual_seed(seed), 0
    with torch.no_grad():
        for _, weight, left in _matrices(parameters, targets):
            alive = weight != 0
            if not (holes := left & ~alive).any():  # nor need its weights have a deviation
                continue
            noise = torch.randn(weight.shape, generator=draw).to(weight.device)
            weight.copy_(torch.where(holes, NOISE * weight[alive].std() * noise, weight))
            filled += int(holes.sum())
    return filled


def masks_of_units(parameters: Mapping[str, Tensor], targets: Iterable[Target]) -> Masks:
    """Keep-masks of rows and columns that have any weight, holes among them; of matrices that lack some."""
    masks: dict[str, Tensor] = {}
    for p, _, left in _matrices(parameters, targets):
        if not left.all():
            mask = masks.setdefault(p.weight, torch.ones_like(parameters[p.weight], dtype=torch.bool))
            p.of(mask).copy_(left)
    return masks


def can_be_refitted(layout: Layout, base: Layout) -> bool:
    """Whether a model's sublayers are those of a base model, some of which it may lack, with streams of their width."""
    ours, theirs = (dict(_ends(one)) for one in (layout, base))
    return all(theirs.get(path) == width for path, width in ours.items())


def _ends(layout: Layout) -> Iterator[tuple[str, int]]:
    for block in layout.at("sublayer"):
        last = layout.ends(block)[0].last
        yield last.path, last.out_features


def _matrices(
    parameters: Mapping[str, Tensor], targets: Iterable[Target]
) -> Iterator[tuple[Projection, Tensor, Tensor]]:
    """Each projection, its weight (out, in) as it is stored, and which of it lie in rows and columns that are left."""
    for p in (p for target in targets for p in target.projections):
        weight = p.of(parameters[p.weight])
        alive = weight != 0
        yield p, weight, alive.any(1)[:, None] & alive.any(0)
