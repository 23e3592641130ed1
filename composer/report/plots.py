"""Losses against steps and seconds: any number of runs in one picture, and small panels for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .curves import Curve, Told, read_all
from .kit import canvas
from .kit.canvas import GREY, INK, MARKERS, PALETTE, SURFACE

LOSS = "loss (nats)"
ERROR = "relative error"
AXES = {"step": "training steps", "train_seconds": "training time (s)"}
LEVEL_ORDER = ("module", "sublayer", "layer")


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
    told: dict[Told, list[Curve]] = {"run": [], "blocks": [], "joint": []}
    for s in stats:
        told[s.kind] += s.curves
    canvas.save(loss_figure(told["run"], told["blocks"], told["joint"]), output)


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
            looks = _looks(runs)
            for axes, name in zip(np.ravel(parts[0].subplots(1, len(x))), x, strict=True):
                _draw_runs(axes, runs, looks, name)
            handles = [_handle(look, curve.label) for curve, look in zip(runs, looks, strict=True)]
            canvas.legend(parts[0], handles + _keys(), columns)
        if joint:
            part = parts[1 if runs else 0]
            for axes, name in zip(np.ravel(part.subplots(1, len(x))), x, strict=True):
                draw_joint(axes, joint, name)
            canvas.legend(part, axes.get_legend_handles_labels()[0], columns)
        if blocks:
            for axes, name in zip(np.ravel(parts[-1].subplots(1, len(x))), x, strict=True):
                draw_levels(axes, blocks, name)
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


def block_figure(blocks: Sequence[Curve]) -> Figure:
    """The block phase: per level the median and the 10-90 % band of the blocks' errors against steps."""
    with canvas.style():
        figure = Figure(figsize=(4.6, 3.3), layout="constrained")
        axes = figure.subplots()
        draw_levels(axes, blocks, "step")
        canvas.legend(figure, axes.get_legend_handles_labels()[0], 1)
    return figure


def joint_figure(joint: Sequence[Curve]) -> Figure:
    """The joint phase: every configuration's validation loss and their mean, against joint steps."""
    with canvas.style():
        figure = Figure(figsize=(4.6, 3.2 + 0.2 * -(-(len(joint) + 1) // 4)), layout="constrained")
        axes = figure.subplots()
        draw_joint(axes, joint, "step")
        canvas.legend(figure, axes.get_legend_handles_labels()[0], 4)
    return figure


def draw_joint(axes: Axes, joint: Sequence[Curve], x: str) -> None:
    """Each configuration's validation loss, and the mean over all where all are known."""
    losses: list[float] = []
    lines = [curve.line("valid_loss", x) for curve in joint]
    for curve, look, (at, valid) in zip(joint, _looks(joint), lines, strict=True):
        axes.plot(at, valid, **_line(look), label=str(curve.configuration))
        losses += valid
    if len({tuple(at) for at, _ in lines}) == 1:
        mean = np.mean([valid for _, valid in lines], axis=0)
        axes.plot(lines[0][0], mean, color=INK, linewidth=1.4, linestyle=(0, (1, 2)), label="mean")
    canvas.loss_axis(axes, losses, LOSS)
    axes.set_title("joint phase, validation, by configuration")
    axes.set_xlabel("joint steps, of all configurations together" if x == "step" else AXES[x])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x == "step"))


def draw_levels(axes: Axes, blocks: Sequence[Curve], x: str) -> None:
    """Median and 10-90 % band over the blocks of each level.

    A block counts with its best error so far, also after it stopped early: that is what it would store.
    """
    levels = sorted({c.level for c in blocks}, key=lambda n: (*LEVEL_ORDER, n).index(n))
    drawn: list[float] = []
    for i, level in enumerate(levels):
        curves = [c for c in blocks if c.level == level]
        steps = sorted({p.step for c in curves for p in c.points})
        bests = [[b for c in curves if (b := _best(c, step)) is not None] for step in steps]
        where = [_median_seconds(curves, s) for s in steps] if x == "train_seconds" else [float(s) for s in steps]
        known = [(a, np.percentile(b, [10, 50, 90])) for a, b in zip(where, bests, strict=True) if b]
        if not known:
            continue
        at, (low, middle, high) = [a for a, _ in known], np.array([b for _, b in known]).T
        colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0)
        label = f"{level}: median of {len(curves)}, 10–90% band"
        axes.plot(at, middle, color=colour, marker=marker, markersize=4, linewidth=1.8, label=label)
        drawn += [*low, *high]
    canvas.loss_axis(axes, drawn, ERROR)
    axes.set_title("block phase, validation")
    axes.set_xlabel("training steps of a block" if x == "step" else "training time per block, median (s)")


def _best(curve: Curve, step: int) -> float | None:
    values = [p.valid_loss for p in curve.points if p.step <= step and p.valid_loss is not None]
    finite = [v for v in values if np.isfinite(v)]
    return min(finite, default=None)


def _median_seconds(curves: Iterable[Curve], step: int) -> float:
    """Median over blocks of the seconds spent up to this step."""
    spent = [max((p.train_seconds or 0.0 for p in c.points if p.step <= step), default=0.0) for c in curves]
    return float(np.median(spent))


@dataclass(frozen=True)
class _Look:
    colour: str
    marker: str
    dashes: str
    filled: bool


def _looks(runs: Sequence[Curve]) -> list[_Look]:
    """One colour and marker per configuration; the baseline greyer, dashed, with open markers."""
    used = max((c.configuration for c in runs if c.configuration is not None), default=-1) + 1
    looks = []
    for curve in runs:
        if curve.kind == "dense":
            looks.append(_Look(INK, "", "-.", True))
            continue
        number = curve.configuration
        if number is None:
            number, used = used, used + 1
        colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
        baseline = curve.kind == "baseline"
        looks.append(
            _Look(
                canvas.blend(colour, GREY, 0.6) if baseline else colour,
                marker,
                "--" if baseline else "-",
                not baseline,
            )
        )
    return looks


def _draw_runs(axes: Axes, runs: Sequence[Curve], looks: Sequence[_Look], x: str) -> None:
    losses: list[float] = []
    for curve, look in zip(runs, looks, strict=True):
        at, train = curve.line("train_loss", x)
        axes.plot(at, train, color=look.colour, linewidth=0.8, linestyle=(0, (2, 2)), alpha=0.75)
        at, valid = curve.line("valid_loss", x)
        axes.plot(at, valid, **_line(look), markevery=max(1, len(at) // 12))
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
    for curve, look in ((panel.baseline, _control()), (panel.composed, _composed(panel.configuration))):
        if curve is not None:
            line = curve.line("valid_loss", "step")
            axes.plot(*line, **_line(look))
            losses += line[1]
    if dense is not None:
        axes.axhline(dense, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        losses.append(dense)
    canvas.loss_axis(axes, losses, LOSS)


def _panel_keys(panels: Sequence[Panel], dense: float | None) -> list[Line2D]:
    one = _composed(panels[0].configuration) if len(panels) == 1 else _Look(INK, "o", "-", True)
    keys = [_handle(one, "composed"), _handle(_control(), "baseline")]
    if dense is not None:
        keys.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (1, 2)), label="dense"))
    return keys


def _composed(number: int) -> _Look:
    return _Look(PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)], "-", True)


def _control() -> _Look:
    return _Look(GREY, "o", "--", False)


def _line(look: _Look) -> dict[str, Any]:
    face = look.colour if look.filled else SURFACE
    return {
        "color": look.colour,
        "linestyle": look.dashes,
        "linewidth": 1.8,
        "marker": look.marker,
        "markersize": 4.5,
        "markerfacecolor": face,
    }


def _handle(look: _Look, label: str) -> Line2D:
    return Line2D([], [], **_line(look), label=label)


def _keys() -> list[Line2D]:
    thin = Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (2, 2)), label="thin: training")
    return [
        thin,
        Line2D([], [], color=INK, linewidth=1.8, marker="o", markersize=4.5, label="thick: validation"),
    ]
