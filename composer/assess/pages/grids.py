"""Grids of tinted cells: layers × roles × anything, several of them below each other in one picture.

A cell is drawn in a colour of the palette, the more opaque the larger its value, so that light and dark pages both
show it on their own ground.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...report.kit import canvas
from ...report.kit.canvas import FAINT, GREY, INK, PALETTE
from ...report.kit.labels import place

STACKS = {"enc": "encoder", "dec": "decoder", "": "layer"}
CHARACTER = 0.068  # width of one, about, in inches
ROW, GAP, TITLE, HEAD, LEGEND, MARGIN = 0.21, 0.16, 0.24, 0.2, 0.42, 0.06
CELL = (0.135, 0.62)  # least and most width of a cell
NUMBERED = 0.37  # least width of a cell that has room for its number
WIDTH = 3.9  # wanted, so that text stays readable on a phone
PALE, FULL = 0.05, 0.5  # opacities: text on the strongest tint keeps its contrast, light and dark
LONGEST = 26  # characters of a row's label
FEW = 6  # columns of which none is left without its name
NOISE = 0.01  # differences of loss below it are shown alike


@dataclass(frozen=True)
class Grid:
    """Values by row and column; None is left blank. ``groups`` name neighbouring columns, with their number.

    ``texts`` stand in the cells where given; else a cell has its value, as the scale shows it.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    groups: Sequence[tuple[str, int]] = ()
    texts: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Scale:
    """How values become tints.

    Attributes:
        name: what they are, with their unit.
        depth: value -> part of the full tint, 0 to 1.
        show: value -> text in its cell.
        marks: values that the legend shows.
        colour: of the palette; negative values have the colour ``below``.
    """

    name: str
    depth: Callable[[float], float]
    show: Callable[[float], str]
    marks: Sequence[float]
    colour: str = PALETTE[1]
    below: str = PALETTE[0]

    def tint(self, value: float) -> tuple[str, float]:
        """Colour and opacity of a cell."""
        depth = min(max(self.depth(abs(value)), 0.0), 1.0)
        return (self.colour if value >= 0 else self.below), PALE + (FULL - PALE) * depth


def rises(values: Iterable[float], name: str) -> Scale:
    """Differences of losses, which span orders of magnitude: logarithmic above :data:`NOISE`."""
    most = max([abs(v) for v in values if math.isfinite(v)] + [10 * NOISE])
    marks = [0.0, *(mark for mark in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0) if mark < 0.7 * most), most]
    while len(marks) > 6:
        del marks[1]
    full = math.log1p(most / NOISE)
    return Scale(name, lambda v: math.log1p(v / NOISE) / full, signed, marks)


def percents(name: str, colour: str = PALETTE[0]) -> Scale:
    """Values from 0 to 1, written in per cent."""
    return Scale(name, float, lambda v: f"{100 * v:.0f}", (0.0, 0.25, 0.5, 0.75, 1.0), colour)


def signed(value: float) -> str:
    """A difference in four to five characters.

    >>> signed(0.0), signed(0.1234), signed(-0.02), signed(12.34)
    ('0', '+0.12', '−0.02', '+12')
    """
    text = f"{abs(value):.2f}" if abs(value) < 9.995 else f"{abs(value):.0f}"
    return ("+" if value > 0 else "−") + text if float(text) else "0"


def by_layer(title: str, values: Mapping[str, float | None]) -> Grid:
    """A value of each target, by path in execution order: a column for each layer, a row for each role."""
    places = {path: place(path) for path in values}
    seen = list(dict.fromkeys((stack, number) for stack, number, _ in places.values()))
    stacks = list(dict.fromkeys(stack for stack, _ in seen))
    columns = sorted(seen, key=lambda column: stacks.index(column[0]))
    fullest = max(columns, key=lambda c: sum((stack, number) == c for stack, number, _ in places.values()))
    first = [role for stack, number, role in places.values() if (stack, number) == fullest]
    rows = list(dict.fromkeys([*first, *(role for _, _, role in places.values())]))
    known = {(stack, number, role): values[path] for path, (stack, number, role) in places.items()}
    groups = [(STACKS.get(stack, stack), len(list(some))) for stack, some in groupby(columns, key=lambda c: c[0])]
    cells = [[known.get((*column, role)) for column in columns] for role in rows]
    return Grid(title, rows, [number for _, number in columns], cells, groups)


def grid_figure(grids: Sequence[Grid], scale: Scale, *, across: int = 1) -> Figure:
    """Grids as tiles, ``across`` of them side by side, with one legend below."""
    label = max(len(_short(row)) for grid in grids for row in grid.rows) * CHARACTER + 0.12
    most = max(len(grid.columns) for grid in grids)
    widest = max(len(_short(name)) for grid in grids for name in grid.columns) * CHARACTER + 0.06
    # Numbers of layers can be left out where there are many; a few names all have to stand there.
    written = max((len(text) for grid in grids for row in grid.texts for text in row), default=0)
    widest = max(widest, written * CHARACTER + 0.06)
    least, room = (widest if most <= FEW or written else CELL[0]), (WIDTH - label - 2 * MARGIN) / most
    cell = max(min(room, CELL[1]), least)
    wide = max(label + cell * most, WIDTH - 2 * MARGIN)
    tall = [max(_height(grid) for grid in grids[i : i + across]) for i in range(0, len(grids), across)]
    width = min(across, len(grids)) * (wide + 2 * MARGIN)
    height = sum(tall) + LEGEND + 2 * MARGIN
    with canvas.style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.set_axis_off()
        for i, grid in enumerate(grids):
            row, column = divmod(i, across)
            at = MARGIN + column * (wide + 2 * MARGIN), MARGIN + sum(tall[:row])
            _draw(axes, grid, scale, at, label, cell)
        _legend(axes, scale, MARGIN, height - LEGEND)
    return figure


def _height(grid: Grid) -> float:
    heads = HEAD * (any(grid.columns) + bool(grid.groups))
    return (TITLE if grid.title else 0) + heads + ROW * len(grid.rows) + GAP


def _draw(axes: Axes, grid: Grid, scale: Scale, at: tuple[float, float], label: float, cell: float) -> None:
    x, y = at
    if grid.title:
        axes.text(x, y + TITLE / 2, grid.title, va="center", fontsize=9, color=INK)
        y += TITLE
    y = _heads(axes, grid, x + label, y, cell)
    for i, (name, values) in enumerate(zip(grid.rows, grid.values, strict=True)):
        texts = grid.texts[i] if grid.texts else [None] * len(values)
        axes.text(x + label - 0.06, y + ROW / 2, _short(name), ha="right", va="center", fontsize=8, color=INK)
        for column, (value, text) in enumerate(zip(values, texts, strict=True)):
            at_x = x + label + column * cell
            if value is not None and math.isfinite(value):
                _cell(axes, scale, value, at_x, y, cell, text)
            elif text:
                axes.text(at_x + cell / 2, y + ROW / 2, text, ha="center", va="center", fontsize=7.5, color=INK)
        y += ROW


def _heads(axes: Axes, grid: Grid, x: float, y: float, cell: float) -> float:
    """Names of the groups and of the columns, as many as there is room for; returns where the rows begin."""
    start = 0
    for name, span in grid.groups:
        room = max(int(span * cell / CHARACTER), 1)
        text = name if len(name) <= room else name[:room]
        axes.text(x + (start + span / 2) * cell, y + HEAD / 2, text, ha="center", va="center", fontsize=8, color=FAINT)
        if len(grid.groups) > 1:
            left, right = x + start * cell + 0.03, x + (start + span) * cell - 0.03
            axes.plot([left, right], [y + HEAD, y + HEAD], color=GREY, linewidth=0.7)
        start += span
    y += HEAD * bool(grid.groups)
    if not any(grid.columns):
        return y
    widest = max(len(_short(name)) for name in grid.columns) * CHARACTER + 0.04
    step = math.ceil(widest / cell)
    starts = {0, *(sum(span for _, span in grid.groups[:i]) for i in range(len(grid.groups)))}
    origin = 0
    for i, name in enumerate(grid.columns):
        origin = i if i in starts else origin
        if (i - origin) % step == 0:
            axes.text(
                x + (i + 0.5) * cell, y + HEAD / 2, _short(name), ha="center", va="center", fontsize=7.5, color=FAINT
            )
    return y + HEAD


def _cell(axes: Axes, scale: Scale, value: float, x: float, y: float, cell: float, text: str | None) -> None:
    colour, opacity = scale.tint(value)
    inset = 0.012
    size = cell - 2 * inset, ROW - 2 * inset
    axes.add_patch(Rectangle((x + inset, y + inset), *size, facecolor=colour, alpha=opacity, linewidth=0))
    if cell >= NUMBERED:
        shown = scale.show(value) if text is None else text
        axes.text(x + cell / 2, y + ROW / 2, shown, ha="center", va="center", fontsize=7.5, color=INK)


def _legend(axes: Axes, scale: Scale, x: float, y: float) -> None:
    """A row of tints with their values."""
    axes.text(x, y + 0.08, scale.name, va="center", fontsize=8, color=FAINT)
    for mark in scale.marks:
        colour, opacity = scale.tint(mark)
        axes.add_patch(Rectangle((x, y + 0.19), 0.15, 0.15, facecolor=colour, alpha=opacity, linewidth=0))
        text = scale.show(mark)
        axes.text(x + 0.2, y + 0.265, text, va="center", fontsize=8, color=FAINT)
        x += 0.32 + len(text) * CHARACTER


def _short(name: str) -> str:
    """A label cut in its middle, where names of files and paths differ least."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"
