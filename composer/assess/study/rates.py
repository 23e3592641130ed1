"""Curves of a study with several rates: each task's figure against the rate, a line for each way and set."""

from __future__ import annotations

from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from ...report.kit import canvas
from ...report.kit.canvas import INK, MARKERS, PALETTE
from ...tasks.metrics.table import metric_of
from .contents import StudyFile, StudyTask

ACROSS = 2
SIZE = (4.9, 3.0)  # inches, of one task's axes
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
DOTTED = (0, (1, 2))

Series = dict[tuple[str, str, str], list[tuple[float, float]]]
"""(criterion, granularity, set) -> (rate, value), by rate."""


def series(content: StudyFile, task: str) -> Series:
    """The lines of one task; a way that was measured at one rate alone is a point."""
    found: Series = {}
    for matrix in content["matrices"]:
        for cell in matrix["cells"]:
            if cell["task"] == task and cell["value"] is not None:
                key = matrix["criterion"], matrix["granularity"], cell["calibration"]
                found.setdefault(key, []).append((matrix["rate"], cell["value"]))
    return {key: sorted(points) for key, points in found.items()}


def has_curves(content: StudyFile) -> bool:
    """Whether any way was measured at more than one rate."""
    ways = [(matrix["criterion"], matrix["granularity"]) for matrix in content["matrices"]]
    return len(set(ways)) < len(ways)


def rates_figure(content: StudyFile) -> Figure:
    """Small axes for each task; colours are sets, dashes are ways of pruning, dotted is the dense model."""
    tasks, sets = content["tasks"], [one["name"] for one in content["sets"]]
    ways = list(dict.fromkeys((m["criterion"], m["granularity"]) for m in content["matrices"]))
    across = min(ACROSS, len(tasks))
    down = -(-len(tasks) // across)
    with canvas.style():
        foot = 0.25 * -(-(len(sets) + len(ways) + 1) // 3)
        figure = Figure(figsize=(SIZE[0] * across, SIZE[1] * down + foot), layout="constrained")
        places = figure.subplots(down, across, squeeze=False).ravel()
        for axes, task in zip(places, tasks, strict=False):
            _draw(axes, content, task, sets, ways)
        for axes in places[len(tasks) :]:
            axes.set_axis_off()
        canvas.legend(figure, _handles(sets, ways), 3)
    return figure


def _draw(axes: Axes, content: StudyFile, task: StudyTask, sets: list[str], ways: list[tuple[str, str]]) -> None:
    for (criterion, granularity, name), points in series(content, task["task"]).items():
        place, way = sets.index(name), ways.index((criterion, granularity))
        axes.plot(
            [100 * rate for rate, _ in points],
            [value for _, value in points],
            color=PALETTE[place % len(PALETTE)],
            linestyle=DASHES[way % len(DASHES)],
            marker=MARKERS[way % len(MARKERS)],
            markersize=4,
            linewidth=1.4,
        )
    if task["dense"] is not None:
        axes.axhline(task["dense"], color=INK, linewidth=1.1, linestyle=DOTTED)
    metric = metric_of(task["measure"])
    if task["measure"] == "perplexity":
        plain_logarithms(axes)
    axes.set_title(f"{task['heading']}: {metric.label}", fontsize=8.5, loc="left")
    axes.set_xlabel("rate (%)", fontsize=8)
    axes.tick_params(labelsize=7.5, which="both")


def plain_logarithms(axes: Axes) -> None:
    """A logarithmic axis for perplexities, with plain numbers: the usual ones are formulas."""
    axes.set_yscale("log")
    for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))


def _handles(sets: list[str], ways: list[tuple[str, str]]) -> list[Line2D]:
    colours = [Line2D([], [], color=PALETTE[i % len(PALETTE)], label=name) for i, name in enumerate(sets)]
    looks = [
        Line2D(
            [], [], color=INK, linestyle=DASHES[i % len(DASHES)], marker=MARKERS[i % len(MARKERS)], label=", ".join(way)
        )
        for i, way in enumerate(ways)
    ]
    return [*colours, *looks, Line2D([], [], color=INK, linestyle=DOTTED, label="dense")]
