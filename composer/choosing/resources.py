"""What the parts of a model take at every width: multiplications and parameters. Plain numbers, no torch."""

from __future__ import annotations

from collections.abc import Mapping

from ..shrinking.units import Units

STEPS = 48
"""About so many widths of each part are looked at."""


def widths(units: Units) -> list[int]:
    """How many units may be kept, from all to none: every count where there are few, else about :data:`STEPS`."""
    step = max(1, units.count // STEPS)
    return [*range(units.count, 0, -step), 0]


def macs(units: Units, kept: int, lengths: Mapping[str, float]) -> float:
    """Multiplications for one example with so many units left.

    Args:
        lengths: stream -> tokens of an example. Cross-attention has its keys and values from the encoder's.
    """
    rows = sum(units.rows(p) * p.in_features * lengths[p.stream] for p in units.first)
    after = units.columns * units.last.out_features * lengths[units.last.stream]
    pairs = lengths[units.first[0].stream] * lengths[units.first[-1].stream]
    among = 2 * units.columns * pairs if units.kind == "attention" else 0.0
    return kept * (rows + after + among)
