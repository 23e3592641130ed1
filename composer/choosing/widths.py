"""The widths of a model's parts that are looked at. Plain numbers, no torch."""

from __future__ import annotations

from ..shrinking.units import Units

STEPS = 48
"""About so many widths of each part are looked at."""


def widths(units: Units) -> list[int]:
    """How many units may be kept, from all to none: every count where there are few, else about :data:`STEPS`."""
    step = max(1, units.count // STEPS)
    return [*range(units.count, 0, -step), 0]
