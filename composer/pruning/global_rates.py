"""Rates that follow from the weights: one threshold over all targets, settled when a scheme is made.

That units are ranked over all targets is said by the granularity ``global``; which criteria have scores that are
comparable over targets they say themselves (``"global"`` among their ``shapes``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..scheme.configurations import Assignment, Configurations, Spec
from ..scheme.layout import Layout
from ..scheme.shapes import Shape
from .criteria import CRITERIA

if TYPE_CHECKING:
    from torch import Tensor

    from .criteria.criterion import Criterion

GLOBAL = Shape("global")
"""The granularity whose units are ranked over all targets that say it."""


def is_global(entry: float | Spec) -> bool:
    """Whether a configuration puts a target under the threshold that it shares with others."""
    return isinstance(entry, Spec) and entry.granularity == str(GLOBAL)


def default_granularity(criterion: str) -> str | None:
    """``"global"`` for a criterion that makes sense with nothing else; None: each target's own default."""
    return str(GLOBAL) if _shapes(criterion) == {GLOBAL.kind} else None


def complete(configurations: Configurations, criterion: str) -> Configurations:
    """The same configurations where entries under one threshold name both the granularity and the criterion.

    Either says the other: a criterion that makes sense with ``global`` alone, and ``global`` the criterion.

    Args:
        criterion: the run's; it is taken where its scores are comparable, else the first one whose are.
    """
    both = [{key: _complete(entry, criterion) for key, entry in one.items()} for one in configurations.configurations]
    return configurations.model_copy(update={"configurations": both})


def wants_allocation(assigned: Assignment) -> bool:
    """Whether a configuration has targets under one threshold."""
    return bool(_by_criterion(assigned))


def allocate(assigned: Assignment, layout: Layout, parameters: Mapping[str, Tensor]) -> Assignment:
    """The configuration with the rate that each global target really gets; each criterion has its own threshold.

    The total is the one that the rates ask for, ``round(Σ rate · weights)``; it is exact, as are the counts that
    the new rates stand for. A target that keeps everything is left out; one that loses everything gets rate 1.

    Args:
        parameters: the base model's, by name.

    Raises:
        ConfigError: a criterion that looks at more than the weights, which are all there is when a scheme is made.
    """
    settled: dict[str, float | Spec] = dict(assigned)
    for name, specs in _by_criterion(assigned).items():
        criterion = CRITERIA.get(name)()
        if criterion.needs:
            raise ConfigError(
                f"{next(iter(specs))}: criterion {name!r} needs {', '.join(sorted(criterion.needs))}; with granularity "
                f"'{GLOBAL}' rates are settled from the weights alone, so only criteria that need nothing are allowed"
            )
        targets = [layout.target(path) for path in specs]
        total = round(sum(spec.rate * target.parameters for spec, target in zip(specs.values(), targets, strict=True)))
        counts = removals([_scores(criterion, path, layout, parameters) for path in specs], total)
        for target, count in zip(targets, counts, strict=True):
            if count:
                settled[target.path] = specs[target.path].model_copy(update={"rate": count / target.parameters})
            else:
                del settled[target.path]
    return settled


def removals(scores: Sequence[Sequence[Tensor]], removed: int) -> list[int]:
    """How many weights of each target, given by the scores of its matrices, are among the ``removed`` lowest of all.

    Exact: ties go by the order of the targets, then of their matrices, then by index.
    """
    import torch

    flat = [torch.cat([matrix.reshape(-1) for matrix in matrices]) for matrices in scores]
    ends = torch.tensor([len(one) for one in flat]).cumsum(0)
    lowest = torch.argsort(torch.cat(flat), stable=True)[:removed].cpu()
    return [int(n) for n in torch.bincount(torch.searchsorted(ends, lowest, right=True), minlength=len(flat))]


def _scores(criterion: Criterion, path: str, layout: Layout, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    from .cut import Cut

    return Cut(layout, path, GLOBAL, criterion, parameters, lambda _: {}).scores


def _by_criterion(assigned: Assignment) -> dict[str, dict[str, Spec]]:
    """Criterion -> the targets under its threshold; criteria that know none are refused when the scheme is checked."""
    thresholds: dict[str, dict[str, Spec]] = {}
    for path, entry in assigned.items():
        if isinstance(entry, Spec) and is_global(entry) and entry.criterion and GLOBAL.kind in _shapes(entry.criterion):
            thresholds.setdefault(entry.criterion, {})[path] = entry
    return thresholds


def _complete(entry: float | Spec, criterion: str) -> float | Spec:
    if not isinstance(entry, Spec):
        return entry
    if entry.criterion and not entry.granularity:
        return entry.model_copy(update={"granularity": default_granularity(entry.criterion)})
    if is_global(entry) and not entry.criterion:
        return entry.model_copy(update={"criterion": _comparable(criterion)})
    return entry


def _comparable(criterion: str) -> str:
    """``criterion`` if its scores are comparable over targets, else the first one whose are."""
    names = (criterion, *CRITERIA.names())
    return next(name for name in names if GLOBAL.kind in _shapes(name))


def _shapes(criterion: str) -> frozenset[str]:
    """What a criterion makes sense with; nothing where there is no such criterion, which is said where it is used."""
    return CRITERIA.get(criterion).shapes if criterion in CRITERIA.names() else frozenset()
