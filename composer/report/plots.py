"""Losses against steps and seconds: any number of runs in one picture, and small panels for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from . import looks, phases
from .curves import Curve, StatsKind, read_all
from .kit import canvas
from .kit.canvas import INK
from .looks import AXES, LOSS


@dataclass(frozen=True)
class Panel:
    """One configuration's pair of runs; a side that was not trained is None."""

    configuration: int
    composed: Curve | None
    baseline: Curve | None


def plot(csvs: Sequence[Path], output: Path) -> None:
    """Draw the losses of any number of runs against steps and against seconds, as PNG or SVG by suffix.

    Raises:
        InputError: another suffix, or no files.
        DataError: a file that is missing, empty or malformed.
    """
    canvas.check_suffix(output)
    if not csvs:
        raise canvas.InputError("plot: got no CSV files; needed: at least one, such as stats/model-0.csv")
    stats = read_all(csvs)
    curves: dict[StatsKind, list[Curve]] = {"run": [], "blocks": [], "joint": []}
    for s in stats:
        curves[s.kind] += s.curves
    canvas.save(loss_figure(curves["run"], curves["blocks"], curves["joint"]), output)


def loss_figure(
    runs: Sequence[Curve],
    blocks: Sequence[Curve] = (),
    joint: Sequence[Curve] = (),
    *,
    x: Sequence[str] = tuple(AXES),
) -> Figure:
    """Runs in the upper row, then the joint phase, then the levels of the block phase; a column per entry of ``x``."""
    runs = sorted(runs, key=lambda c: (c.kind == "dense", c.configuration is None, c.configuration or 0))
    columns = 4 if len(x) > 1 else 3
    heights = [3.6 + 0.2 * -(-(len(runs) + 2) // columns)] * bool(runs)
    heights += [3.6 + 0.2 * -(-(len(joint) + 1) // columns)] * bool(joint) + [3.9] * bool(blocks)
    with canvas.style():
        figure = Figure(figsize=(5.2 * len(x) + 0.4 if len(x) > 1 else 4.6, sum(heights) or 3), layout="constrained")
        rows = figure.subfigures(max(len(heights), 1), 1, squeeze=False, height_ratios=heights or None)
        parts = [row[0] for row in rows]
        if runs:
            styles = looks.looks(runs)
            for axes, name in zip(np.ravel(parts[0].subplots(1, len(x))), x, strict=True):
                _draw_runs(axes, runs, styles, name)
            handles = [looks.handle(look, curve.label) for curve, look in zip(runs, styles, strict=True)]
            canvas.legend(parts[0], handles + _keys(), columns)
        if joint:
            part = parts[1 if runs else 0]
            for axes, name in zip(np.ravel(part.subplots(1, len(x))), x, strict=True):
                phases.draw_joint(axes, joint, name)
            canvas.legend(part, axes.get_legend_handles_labels()[0], columns)
        if blocks:
            for axes, name in zip(np.ravel(parts[-1].subplots(1, len(x))), x, strict=True):
                phases.draw_levels(axes, blocks, name)
            canvas.legend(parts[-1], axes.get_legend_handles_labels()[0], columns - 1)
    return figure


def comparison_figure(panels: Sequence[Panel], *, dense: float | None = None) -> Figure:
    """A small panel per configuration: composed against baseline validation loss.

    Args:
        dense: the dense model's loss, drawn as a horizontal line.
    """
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    with canvas.style():
        figure = Figure(figsize=(3.9 * columns, 2.6 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, panel, dense)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        canvas.legend(figure, _panel_keys(panels, dense), 3)
    return figure


def _draw_runs(axes: Axes, runs: Sequence[Curve], styles: Sequence[looks.Look], x: str) -> None:
    losses: list[float] = []
    for curve, look in zip(runs, styles, strict=True):
        at, train = curve.line("train_loss", x)
        axes.plot(at, train, color=look.colour, linewidth=0.8, linestyle=(0, (2, 2)), alpha=0.75)
        at, valid = curve.line("valid_loss", x)
        axes.plot(at, valid, **looks.line(look), markevery=max(1, len(at) // 12))
        losses += train + valid
    canvas.loss_axis(axes, losses, LOSS)
    axes.set_xlabel(AXES[x])
    axes.set_title("model level, against " + ("steps" if x == "step" else "seconds"))
    if x == "step":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _draw_panel(axes: Axes, panel: Panel, dense: float | None) -> None:
    losses: list[float] = []
    axes.set_title(f"configuration {panel.configuration}")
    axes.set_xlabel(AXES["step"])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    for curve, look in ((panel.baseline, looks.baseline()), (panel.composed, looks.composed(panel.configuration))):
        if curve is not None:
            line = curve.line("valid_loss", "step")
            axes.plot(*line, **looks.line(look))
            losses += line[1]
    if dense is not None:
        axes.axhline(dense, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        losses.append(dense)
    canvas.loss_axis(axes, losses, LOSS)


def _panel_keys(panels: Sequence[Panel], dense: float | None) -> list[Line2D]:
    one = looks.composed(panels[0].configuration) if len(panels) == 1 else looks.Look(INK, "o", "-", True)
    keys = [looks.handle(one, "composed"), looks.handle(looks.baseline(), "baseline")]
    if dense is not None:
        keys.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (1, 2)), label="dense"))
    return keys


def _keys() -> list[Line2D]:
    thin = Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (2, 2)), label="thin: training")
    return [
        thin,
        Line2D([], [], color=INK, linewidth=1.8, marker="o", markersize=4.5, label="thick: validation"),
    ]
