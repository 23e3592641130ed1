"""What the parts of a model take to run: seconds by width, as measured, and between widths in proportion. No torch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from ..scheme.layout import unnumbered
from ..shrinking.units import Units

GRID = (0.0, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Parts of the heads or neurons at which a kind of part is timed."""


def kind_of(units: Units) -> str:
    """Parts that are timed as one: those at the same place of every layer."""
    return unnumbered(units.path)


def grid(units: Units) -> list[int]:
    """Widths at which a part is timed, from none to all; of heads often fewer than :data:`GRID` has.

    Neurons come in multiples of 8, as those that are chosen mostly do.
    """
    step = 8 if units.count >= 64 * 8 else 1
    inner = (round(part * units.count / step) * step for part in GRID[1:-1])
    return sorted({0, *(width for width in inner if 0 < width < units.count), units.count})


@dataclass(frozen=True)
class Curve:
    """Seconds of one part by width: ``seconds[i]`` with ``widths[i]`` units left; 0 for none."""

    widths: Sequence[int]
    seconds: Sequence[float]

    def at(self, kept: int) -> float:
        """Between the measured widths in proportion.

        >>> Curve([0, 4, 8], [0.0, 1.0, 3.0]).at(6)
        2.0
        """
        i = max(1, min(bisect_left(self.widths, kept), len(self.widths) - 1))
        (low, high), (a, b) = self.widths[i - 1 : i + 1], self.seconds[i - 1 : i + 1]
        return a + (b - a) * (kept - low) / (high - low)


@dataclass(frozen=True)
class Times:
    """Seconds of a model's parts on one machine, in one runtime, on one shape of input.

    Attributes:
        curves: kind of part (:func:`kind_of`) -> its curve.
        rest: seconds of what no head and no neuron takes.
        around: name of a piece of the rest -> its part of the rest.
        dense: seconds of the whole model, as measured.
        spread: how far from the median its interval reaches, relative: what of these figures is noise.
        fit: largest distance of the sums from what was measured, relative.
        how: machine, runtime, shape, clock.
    """

    curves: Mapping[str, Curve]
    rest: float
    around: Mapping[str, float]
    dense: float
    spread: float
    fit: float
    how: Mapping[str, Any]

    def seconds(self, units: Units, kept: int) -> float:
        """Of one part with so many units left."""
        return self.curves[kind_of(units)].at(kept)

    def total(self, kept: Mapping[str, int], units: Sequence[Units]) -> float:
        """Of the whole model with so many units left, by path."""
        return self.rest + sum(self.seconds(one, kept[one.path]) for one in units)

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> Self:
        """From what :meth:`plain` gave."""
        return cls(**{**data, "curves": {name: Curve(**curve) for name, curve in data["curves"].items()}})
