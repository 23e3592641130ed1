"""What a part of a model may keep: a number of its units, or all of them with single weights gone. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

from ..shrinking.units import Units
from .times import Curve

STEPS = 48
"""About so many widths of each part are looked at."""
RATES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of a part's single weights that may go, where they may."""
SHARES = (0.75, 0.5, 0.25, 0.125, 0.0)
"""Shares of a part's units at which it is measured by itself, where single weights may go too."""


class Level(NamedTuple):
    """What is left of a part: so many of its units; or all of them, and of each matrix the share ``rate`` is gone."""

    kept: int
    rate: float = 0.0


def widths(units: Units) -> list[int]:
    """How many units may be kept, from all to none: every count where there are few, else about :data:`STEPS`."""
    step = max(1, units.count // STEPS)
    return [*range(units.count, 0, -step), 0]


def levels(units: Units, *, weights: bool) -> list[Level]:
    """All levels of a part, from whole to gone, by the parameters that are left.

    Args:
        weights: whether single weights may go as well as units.
    """
    found = [Level(kept) for kept in widths(units)]
    if weights:
        found[1:-1] += [Level(units.count, rate) for rate in RATES]
    return sorted(found, key=lambda level: -parameters(units, level))


def looked_at(units: Units) -> list[Level]:
    """Levels of a part at which a model is measured in which it alone has them."""
    return [*(Level(round(part * units.count)) for part in SHARES), *(Level(units.count, rate) for rate in RATES)]


def at_levels(units: Units, known: Mapping[Level, float]) -> list[float]:
    """From the rises at :func:`looked_at` those at every level with single weights; in between in proportion.

    None is lower than that of a level of its kind that keeps more.
    """
    kept = sorted({level.kept for level in known if not level.rate} - {units.count}, reverse=True)
    by_width = list(accumulate([0.0, *(known[Level(n)] for n in kept)], max))
    by_rate = dict(zip(RATES, accumulate([known[Level(units.count, rate)] for rate in RATES], max), strict=True))
    curve = Curve([*reversed(kept), units.count], by_width[::-1])
    return [by_rate[level.rate] if level.rate else curve.at(level.kept) for level in levels(units, weights=True)]


def parameters(units: Units, level: Level) -> int:
    """Weights and biases that are left: those that are not zero."""
    gone = sum(round(level.rate * p.out_features * p.in_features) for p in units.projections)
    return units.parameters(level.kept) - gone
