"""How a run looks in a picture: its colour tells the configuration, its line and marker the side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.lines import Line2D

from .curves import Curve
from .kit import canvas
from .kit.canvas import GREY, INK, MARKERS, PALETTE, SURFACE

LOSS = "loss (nats)"
AXES = {"step": "training steps", "train_seconds": "training time (s)"}
"""Labels of the axes."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a run; open markers and dashes are the baseline's, in every picture."""

    colour: str
    marker: str
    dashes: str
    filled: bool


def look_of(colour: str, marker: str, *, pale: bool = False) -> Look:
    """A line in this colour; ``pale`` for what it is compared with: greyer, dashed, with open markers."""
    return Look(canvas.blend(colour, GREY, 0.6), marker, "--", False) if pale else Look(colour, marker, "-", True)


def looks(runs: Sequence[Curve]) -> list[Look]:
    """One colour and marker per configuration; the baseline greyer, dashed, with open markers."""
    used = max((c.configuration for c in runs if c.configuration is not None), default=-1) + 1
    made = []
    for curve in runs:
        if curve.kind == "dense":
            made.append(Look(INK, "", "-.", True))
            continue
        number = curve.configuration
        if number is None:
            number, used = used, used + 1
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        made.append(look_of(colour, marker, pale=curve.kind == "baseline"))
    return made


def composed(number: int) -> Look:
    """A composed model's, by its configuration."""
    return look_of(PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)])


def baseline() -> Look:
    """A baseline's, where there is only one in a picture."""
    return Look(GREY, "o", "--", False)


def line(look: Look) -> dict[str, Any]:
    """As arguments of matplotlib's ``plot``."""
    face = look.colour if look.filled else SURFACE
    return {
        "color": look.colour,
        "linestyle": look.dashes,
        "linewidth": 1.8,
        "marker": look.marker,
        "markersize": 4.5,
        "markerfacecolor": face,
    }


def handle(look: Look, label: str) -> Line2D:
    """For a legend."""
    return Line2D([], [], **line(look), label=label)
