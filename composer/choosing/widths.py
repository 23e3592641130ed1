"""What a part of a model may keep: a number of its units, or all of them with single weights gone. No torch."""

from __future__ import annotations

from typing import NamedTuple

from ..shrinking.units import Units

STEPS = 48
"""About so many widths of each part are looked at."""
RATES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of a part's single weights that may go, where they may."""


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


def parameters(units: Units, level: Level) -> int:
    """Weights and biases that are left: those that are not zero."""
    gone = sum(round(level.rate * p.out_features * p.in_features) for p in units.projections)
    return units.parameters(level.kept) - gone
