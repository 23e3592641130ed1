"""Rates that follow from the weights: one threshold over all targets, settled when a scheme is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..scheme.configurations import Assignment, Spec
from ..scheme.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor


def wants_allocation(assigned: Assignment) -> bool:
    """Whether a configuration has targets under one threshold."""
    return bool(_under_threshold(assigned))


def allocate(assigned: Assignment, layout: Layout, parameters: Mapping[str, Tensor]) -> Assignment:
    """The configuration with the rate that each global target really gets.

    The total is the one that the rates ask for, ``round(Σ rate · weights)``; it is exact, as are the counts that
    the new rates stand for. A target that keeps everything is left out; one that loses everything gets rate 1.

    Args:
        parameters: the base model's, by name.
    """
    from .criteria.global_l1 import removals
    from .cut import weight_of

    asked = _under_threshold(assigned)
    targets = [layout.target(path) for path in asked]
    weights = [[weight_of(p, parameters) for p in t.projections] for t in targets]
    total = round(sum(spec.rate * target.parameters for spec, target in zip(asked.values(), targets, strict=True)))
    counts = removals(weights, total)
    settled: dict[str, float | Spec] = dict(assigned)
    for target, count in zip(targets, counts, strict=True):
        if count:
            settled[target.path] = asked[target.path].model_copy(update={"rate": count / target.parameters})
        else:
            del settled[target.path]
    return settled


def _under_threshold(assigned: Assignment) -> dict[str, Spec]:
    return {path: said for path, said in assigned.items() if isinstance(said, Spec) and said.granularity == "global"}
