"""The block phase and the joint phase as pictures: how near blocks come to the base model, how all learn together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import looks
from .curves import Curve
from .kit import canvas
from .kit.canvas import INK, MARKERS, PALETTE
from .looks import AXES, LOSS

ERROR = "relative error"
LEVEL_ORDER = ("module", "sublayer", "layer")


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
    for curve, look, (at, valid) in zip(joint, looks.looks(joint), lines, strict=True):
        axes.plot(at, valid, **looks.line(look), label=str(curve.configuration))
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

    A block counts with its best error so far, also after it stopped early: that is what it would store. Closed forms
    have no validation split; where no block has one, errors are those on what they were solved from.
    """
    validated = any(point.valid_loss is not None for curve in blocks for point in curve.points)
    levels = sorted({c.level for c in blocks}, key=lambda n: (*LEVEL_ORDER, n).index(n))
    drawn: list[float] = []
    for i, level in enumerate(levels):
        curves = [c for c in blocks if c.level == level]
        steps = sorted({p.step for c in curves for p in c.points})
        bests = [[b for c in curves if (b := _best(c, step, validated)) is not None] for step in steps]
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
    axes.set_title("block phase, validation" if validated else "block phase, closed form: calibration examples")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=x == "step"))
    axes.set_xlabel("training steps of a block" if x == "step" else "training time per block, median (s)")


def _best(curve: Curve, step: int, validated: bool) -> float | None:
    """The lowest error of a block up to this step, on validation data or else on its own; None before its first."""
    values = [p.valid_loss if validated else p.train_loss for p in curve.points if p.step <= step]
    finite = [v for v in values if v is not None and np.isfinite(v)]
    return min(finite, default=None)


def _median_seconds(curves: Iterable[Curve], step: int) -> float:
    """Median over blocks of the seconds spent up to this step."""
    spent = [max((p.train_seconds or 0.0 for p in c.points if p.step <= step), default=0.0) for c in curves]
    return float(np.median(spent))
