"""What of a model is left, as one picture: a row for each layer, a cell for each head, a bar for all neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .kit import canvas
from .kit.canvas import FAINT, INK, PALETTE, RULE

UnitKind = Literal["attention", "feed_forward", "linear"]
COLOURS: dict[UnitKind, str] = {"attention": PALETTE[0], "feed_forward": PALETTE[2], "linear": PALETTE[3]}
NOUNS: dict[UnitKind, str] = {"attention": "heads", "feed_forward": "neurons", "linear": "weights"}
PALEST = 0.25
"""Opacity of a unit of which next to nothing is left; of a whole one it is 1."""
PARTS = 40
"""More heads than that in one row are a bar, too."""
ROW, WIDTH, LABEL, GAP = 0.24, 2.1, 1.0, 0.3  # inches


@dataclass(frozen=True)
class Part:
    """One sublayer: what of its heads or neurons is left (or of a target's weights, where no table knows units).

    Attributes:
        before: how many there were; ``after`` are left.
        units: share of the weights of each unit that are not 0, 0 where it is gone; of heads. Empty: a bar is drawn.
        density: share of the weights that are not 0, of the units that are left.
    """

    kind: UnitKind
    path: str
    before: int
    after: int
    density: float
    units: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """One layer, by its number (or a target's path)."""

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Stack:
    """Layers of one kind, in execution order; ``columns`` are titles of their parts."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def totals(stacks: Sequence[Stack]) -> dict[UnitKind, tuple[int, int]]:
    """Kind -> how many units are left, and of how many."""
    parts = [part for stack in stacks for row in stack.rows for part in row.parts]
    return {
        kind: (sum(p.after for p in parts if p.kind == kind), sum(p.before for p in parts if p.kind == kind))
        for kind in dict.fromkeys(part.kind for part in parts)
    }


def density(stacks: Sequence[Stack]) -> float:
    """Share of weights that are not 0 among the units that are left; layers count alike."""
    parts = [part for stack in stacks for row in stack.rows for part in row.parts if part.after]
    return sum(part.density for part in parts) / len(parts) if parts else 1.0


def said(stacks: Sequence[Stack]) -> str:
    """The picture in words.

    >>> said([Stack("", ("heads",), (Row("0", (Part("attention", "a", 12, 6, 1.0),)),))])
    '6 of 12 heads kept'
    """
    words = [f"{after:,} of {before:,} {NOUNS[kind]}" for kind, (after, before) in totals(stacks).items()]
    inside = density(stacks)
    more = f"; {inside:.0%} of the weights inside are not 0".replace("%", " %") if inside < 0.9995 else ""
    return f"{' and '.join(words)} kept{more}" if words else "no heads or neurons are known"


def kept_figure(stacks: Sequence[Stack], title: str = "") -> Figure:
    """All stacks, one above the other."""
    columns = max((len(stack.columns) for stack in stacks), default=1)
    heights = [(len(stack.rows) + 1.7) * ROW for stack in stacks] or [ROW]
    names = [row.name for stack in stacks for row in stack.rows]
    label = max(LABEL, 0.068 * max(map(len, names), default=0) + 0.5)
    width = label + columns * (WIDTH + LABEL + GAP)
    height = sum(heights) + (3 if title else 2) * ROW
    with canvas.style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        top = 0.5 * ROW
        if title:
            axes.text(0.15, top + 0.5 * ROW, title, va="center", fontsize=10, weight="bold")
            top += 1.2 * ROW
        axes.text(0.15, top + 0.4 * ROW, said(stacks), va="center", fontsize=9, color=FAINT)
        top += 1.0 * ROW
        for stack, tall in zip(stacks, heights, strict=True):
            _draw_stack(axes, stack, label, top)
            top += tall
    return figure


def draw(stacks: Sequence[Stack], output: Path, title: str = "") -> None:
    """Write the picture as PNG or SVG by suffix.

    Raises:
        InputError: another suffix.
    """
    canvas.check_suffix(output)
    canvas.save(kept_figure(stacks, title), output)


def _draw_stack(axes: Axes, stack: Stack, left: float, top: float) -> None:
    middle = top + 1.1 * ROW
    axes.text(0.15, middle, stack.name, va="center", fontsize=9, color=INK)
    for i, column in enumerate(stack.columns):
        axes.text(left + i * (WIDTH + LABEL + GAP), middle, column, va="center", fontsize=8, color=FAINT)
    for number, row in enumerate(stack.rows):
        y = top + (1.7 + number) * ROW
        axes.text(left - 0.15, y + 0.5 * ROW, row.name, ha="right", va="center", fontsize=8, color=FAINT)
        for i, part in enumerate(row.parts):
            _draw_part(axes, part, left + i * (WIDTH + LABEL + GAP), y)


def _draw_part(axes: Axes, part: Part, x: float, y: float) -> None:
    """Cells or a bar, and beside it how many are left; a part of which nothing is left has an empty frame."""
    tall, colour = 0.74 * ROW, COLOURS[part.kind]
    y += 0.13 * ROW
    if part.units and part.before <= PARTS:
        step = WIDTH / part.before
        cell = min(step * 0.88, step - 0.012)
        for i, share in enumerate(part.units):
            _box(axes, x + i * step, y, cell, tall, colour if share else None, share)
    else:
        share = part.after / part.before if part.before else 0.0
        _box(axes, x, y, WIDTH, tall, None, 0.0)
        if share:
            _box(axes, x, y, WIDTH * share, tall, colour, part.density)
    axes.text(
        x + WIDTH + 0.08, y + tall / 2, _count(part), va="center", fontsize=7.5, color=INK if part.after else FAINT
    )


def _box(axes: Axes, x: float, y: float, width: float, height: float, colour: str | None, share: float) -> None:
    axes.add_patch(
        Rectangle(
            (x, y),
            width,
            height,
            facecolor=colour or "none",
            edgecolor="none" if colour else RULE,
            alpha=PALEST + (1 - PALEST) * share if colour else None,
            linewidth=0.7,
        )
    )


def _count(part: Part) -> str:
    """How many are left of how many, and how dense those are where that is not wholly."""
    if not part.after:
        return "gone"
    inside = "" if part.density > 0.9995 else f" · {part.density:.0%}"
    if part.kind == "linear":
        return f"{part.density:.0%}"
    return f"{part.after:,}/{part.before:,}{inside}"
