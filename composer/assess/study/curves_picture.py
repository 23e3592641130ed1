"""Curves of suites as a picture: a panel for each task, several models and criteria in one, and runtime beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...report.kit import canvas
from ...report.kit.canvas import GREY, INK, MARKERS, PALETTE
from ...tasks.metrics.table import metric_of
from ...timing.by_rate import RatePoint
from .contents import CurvedModel, StudyTask, SuiteCurvesFile
from .rates import ACROSS, DOTTED, SIZE, plain_logarithms

Line = tuple[str, str, bool]
"""Criterion, granularity, and whether what is left was refitted."""


def lines(model: CurvedModel, task: str) -> dict[Line, list[tuple[float, float, float, float]]]:
    """The lines of one task: rate, value and the ends of its interval, by rate."""
    found: dict[Line, list[tuple[float, float, float, float]]] = {}
    for point in model["points"]:
        for cell in point["cells"]:
            if cell["task"] == task and (value := cell["value"]) is not None:
                low, high = (value if end is None else end for end in (cell["low"], cell["high"]))
                key = point["criterion"], point["granularity"], point["repaired"]
                found.setdefault(key, []).append((point["rate"], value, low, high))
    return {key: sorted(points) for key, points in found.items()}


def curves_figure(content: SuiteCurvesFile, runtimes: Mapping[str, Sequence[RatePoint]]) -> Figure:
    """A panel for each task of any model, and one for runtime where that was measured.

    Args:
        runtimes: of the models, by name.
    """
    models = content["models"]
    tasks = {task["task"]: task for model in models for task in model["tasks"]}
    timed = {name: rows for name, rows in runtimes.items() if rows}
    panels = len(tasks) + bool(timed)
    across = min(ACROSS, panels)
    down = -(-panels // across)
    colours = colours_of(models)
    handles = _handles(models, colours, timed=bool(timed))
    with canvas.style():
        foot = 0.25 * -(-len(handles) // 2)
        figure = Figure(figsize=(SIZE[0] * across, SIZE[1] * down + foot), layout="constrained")
        places = list(figure.subplots(down, across, squeeze=False).ravel())
        for axes, task in zip(places, tasks.values(), strict=False):
            _task(axes, task, models, colours)
        if timed:
            _runtime(places[len(tasks)], timed, colours, several=len(models) > 1)
        for axes in places[panels:]:
            axes.set_axis_off()
        canvas.legend(figure, handles, 2)
    return figure


def colours_of(models: Sequence[CurvedModel]) -> dict[tuple[str, ...], str]:
    """Colours: of models where there are several, else of ways of pruning."""
    if len(models) > 1:
        keys: list[tuple[str, ...]] = [(model["name"],) for model in models]
    else:
        keys = list(dict.fromkeys((p["criterion"], p["granularity"]) for p in models[0]["points"]))
    return {key: PALETTE[i % len(PALETTE)] for i, key in enumerate(keys)}


def _ways(models: Sequence[CurvedModel]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((p["criterion"], p["granularity"]) for model in models for p in model["points"]))


def _task(axes: Axes, task: StudyTask, models: Sequence[CurvedModel], colours: Mapping[tuple[str, ...], str]) -> None:
    ways = _ways(models)
    for model in models:
        for (criterion, granularity, repaired), points in lines(model, task["task"]).items():
            way = criterion, granularity
            axes.errorbar(
                [100 * rate for rate, *_ in points],
                [value for _, value, *_ in points],
                yerr=[[v - low for _, v, low, _ in points], [high - v for _, v, _, high in points]],
                color=colours.get((model["name"],)) or colours[way],
                linestyle="-" if repaired else "--",
                marker=MARKERS[ways.index(way) % len(MARKERS)],
                markersize=4,
                linewidth=1.3,
                elinewidth=0.8,
                capsize=2,
            )
        own = next((one for one in model["tasks"] if one["task"] == task["task"]), None)
        if own is not None and own["dense"] is not None:
            axes.axhline(own["dense"], color=colours.get((model["name"],), INK), linewidth=1.1, linestyle=DOTTED)
    if task["measure"] == "perplexity":
        plain_logarithms(axes)
    axes.set_title(f"{task['heading']}: {metric_of(task['measure']).label}", fontsize=8.5, loc="left")
    axes.set_xlabel("rate (%)", fontsize=8)
    axes.tick_params(labelsize=7.5, which="both")


def _runtime(
    axes: Axes,
    timed: Mapping[str, Sequence[RatePoint]],
    colours: Mapping[tuple[str, ...], str],
    *,
    several: bool,
) -> None:
    """Times as fast as dense: of models that generate, the prompt; what each token more takes is on the page below."""
    axes.axhline(1, color=GREY, linewidth=0.8)
    for name, rows in timed.items():
        for form, look in (("shrunk", "-"), ("masked", ":")):
            own = sorted((r for r in rows if r["form"] == form and r["part"] != "new tokens"), key=lambda r: r["rate"])
            ratios = [row["faster"] for row in own]
            middle = [ratio["value"] for ratio in ratios]
            axes.errorbar(
                [100 * row["rate"] for row in own],
                middle,
                yerr=[[r["value"] - r["low"] for r in ratios], [r["high"] - r["value"] for r in ratios]],
                color=colours.get((name,), INK) if several else INK,
                linestyle=look,
                marker="o" if form == "shrunk" else "x",
                markersize=4,
                linewidth=1.3,
                elinewidth=0.8,
                capsize=2,
            )
    axes.set_title("Runtime: times as fast as dense", fontsize=8.5, loc="left")
    axes.set_xlabel("heads and neurons removed (%)", fontsize=8)
    axes.tick_params(labelsize=7.5)


def _handles(models: Sequence[CurvedModel], colours: Mapping[tuple[str, ...], str], *, timed: bool) -> list[Line2D]:
    ways = _ways(models)
    found = [
        Line2D(
            [],
            [],
            color=colour,
            marker=None if len(models) > 1 else MARKERS[i % len(MARKERS)],
            label=", ".join(key),
        )
        for i, (key, colour) in enumerate(colours.items())
    ]
    if len(models) > 1:
        looks = [(MARKERS[i % len(MARKERS)], ", ".join(way)) for i, way in enumerate(ways)]
        found += [Line2D([], [], color=INK, linestyle="", marker=marker, label=label) for marker, label in looks]
    repaired = {point["repaired"] for model in models for point in model["points"]}
    if True in repaired:
        found.append(Line2D([], [], color=INK, linestyle="-", label="refitted"))
    if False in repaired:
        found.append(Line2D([], [], color=INK, linestyle="--", label="as pruned"))
    found.append(Line2D([], [], color=INK, linestyle=DOTTED, label="dense"))
    if timed:
        found.append(Line2D([], [], color=INK, linestyle="-", marker="o", label="runtime, shrunk"))
        found.append(Line2D([], [], color=INK, linestyle=":", marker="x", label="runtime, masked (no gain)"))
    return found
