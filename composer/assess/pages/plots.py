"""Plots of an assessment: how large the weights are, and metric, loss and seconds against the rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from ...report import looks
from ...report.kit import canvas
from ...report.kit.canvas import GREY, INK, MARKERS, PALETTE
from ...report.kit.labels import place
from ..contents import CurvesFile, TargetWeights, WeightsFile

SIZE = (3.9, 2.9)  # inches: text stays readable on a phone
KINDS = {"attention": PALETTE[0], "linear": PALETTE[1]}
ALL = "all"
ACROSS = 3  # layers side by side
TINY = (1.27, 0.95)
DOTTED = (0, (1, 2))
FEW = 10  # rates that all have their tick

Row = Mapping[str, Any]


def histogram_figure(weights: WeightsFile) -> Figure:
    """The absolute values of all weights, by kind of target, on a logarithmic axis."""
    edges, rows = _edges(weights), weights["targets"]
    with canvas.style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        handles = _stairs(axes, edges, rows)
        _decades(axes, edges)
        axes.set_xlabel("absolute value of a weight, log scale")
        axes.set_ylabel("weights per bin (%)")
        axes.set_ylim(bottom=0)
        canvas.legend(figure, handles, 2)
    return figure


def layers_figure(weights: WeightsFile) -> Figure:
    """The same for each layer by itself: small axes with one scale."""
    edges, rows = _edges(weights), weights["targets"]
    layers = {
        layer: [row for row in rows if row["layer"] == layer] for layer in dict.fromkeys(r["layer"] for r in rows)
    }
    across = min(ACROSS, len(layers))
    down = -(-len(layers) // across)
    head, foot = 0.08, 0.62
    width, height = across * TINY[0] + 0.1, down * TINY[1] + head + foot
    top = max(float(per_cent.max()) for some in layers.values() for _, per_cent in _by_kind(some))
    with canvas.style():
        figure = Figure(figsize=(width, height))
        for i, (layer, some) in enumerate(layers.items()):
            down_to, column = divmod(i, across)
            x, y = 0.05 + column * TINY[0] + 0.06, height - head - (down_to + 1) * TINY[1] + 0.2
            box = (x / width, y / height, (TINY[0] - 0.14) / width, (TINY[1] - 0.44) / height)
            axes = figure.add_axes(box)
            handles = _stairs(axes, edges, some, thin=True)
            axes.set_ylim(0, 1.05 * top)
            axes.set_title(layer_name(layer), fontsize=8, pad=2, loc="left")
            _decades(axes, edges, inner=True)
            axes.tick_params(labelsize=7, length=2, labelleft=False, left=False)
            if i + across < len(layers):
                axes.tick_params(labelbottom=False)
        figure.text(0.5, 0.34 / height, "absolute value, log scale", ha="center", va="center", fontsize=8)
        figure.legend(handles=handles, loc="lower center", ncols=2, fontsize=8, borderaxespad=0.1)
    return figure


def cutoff_figure(weights: WeightsFile) -> Figure:
    """The share of weights below any cutoff, in all and by kind of target."""
    points = weights["cutoffs"]
    kinds = [ALL, *(kind for kind in points[0]["share_below"] if kind != ALL)]
    at = [point["cutoff"] for point in points]
    with canvas.style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        handles = []
        for kind in kinds if len(kinds) > 2 else kinds[:1]:
            colour, dashes = (INK, "-") if kind == ALL else (KINDS.get(kind, GREY), "--")
            per_cent = [100 * point["share_below"][kind] for point in points]
            handles += axes.plot(at, per_cent, color=colour, linestyle=dashes, linewidth=1.8, label=_kind(kind))
        _decades(axes, np.array(at))
        axes.set_xlabel("cutoff, log scale")
        axes.set_ylabel("weights below it (%)")
        axes.set_ylim(0, 102)
        canvas.legend(figure, handles, 3)
    return figure


def curve_figure(
    curves: CurvesFile, value: str, label: str, *, dense: Any, show: Callable[[float], str] | None
) -> Figure:
    """One figure of every way of pruning against the rate, with the dense model's.

    Args:
        value: metric, loss or seconds.
        show: texts of the ticks; None leaves them to the axis.
    """
    with canvas.style():
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        handles: list[Line2D] = []
        known: list[float] = []
        many = len({granularity(row.get("granularity")) for row in curves["rows"]}) > 1
        for i, (name, points) in enumerate(series(curves["rows"], value).items()):
            at = [100 * rate for rate, _ in points]
            values = [v for _, v in points]
            colour = PALETTE[_index(curves["rows"], name) % len(PALETTE)]
            look = looks.look_of(colour, MARKERS[i % len(MARKERS)], pale=not name[2])
            handles += axes.plot(
                at, values, **looks.line(look), label=series_name((name[0], name[1] if many else "", name[2]))
            )
            known += values
        if dense is not None:
            handles.append(axes.axhline(dense, color=INK, linewidth=1.1, linestyle=DOTTED, label="dense"))
            known.append(dense)
        axes.set_xlabel("rate (%)")
        rates = sorted({100 * row["rate"] for row in curves["rows"]})
        axes.set_xlim(0, max([100.0, *rates]) if rates and rates[-1] > 80 else 80)
        if len(rates) <= FEW:
            axes.xaxis.set_major_locator(FixedLocator([0, *rates]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if value == "loss":
            canvas.loss_axis(axes, known, label)
            axes.set_ylabel(axes.get_ylabel().replace(", log", "\nlog"))  # in one line it is longer than the axis
        else:
            axes.set_ylabel(label)
            low, high = (0.0 if value == "seconds" else min(known)), max(known)
            margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
            axes.set_ylim(low if value == "seconds" else low - margin, high + margin)
        if show:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: show(y)))
        canvas.legend(figure, handles, 1 if many else 2)
    return figure


def series(rows: Sequence[Row], value: str) -> dict[tuple[str, str, bool], list[tuple[float, float]]]:
    """(criterion, granularity, repaired) -> (rate, value) where it is known, by rate."""
    found: dict[tuple[str, str, bool], list[tuple[float, float]]] = {}
    for row in rows:
        if row.get(value) is not None:
            key = str(row["criterion"]), granularity(row.get("granularity")), bool(row.get("repaired"))
            found.setdefault(key, []).append((row["rate"], row[value]))
    return {key: sorted(points) for key, points in found.items()}


def series_name(key: tuple[str, str, bool]) -> str:
    """A legend's text.

    >>> series_name(("l1", "unstructured", True))
    'l1, unstructured, repaired'
    """
    return ", ".join([*(part for part in key[:2] if part), *(["repaired"] if key[2] else [])])


def granularity(given: Any) -> str:
    """A granularity as text: one for all targets, or one for each kind.

    >>> granularity({"attention": "head", "linear": "unstructured"}), granularity(None)
    ('head/unstructured', '')
    """
    return "/".join(map(str, given.values())) if isinstance(given, dict) else str(given or "")


def layer_name(path: str) -> str:
    """A layer's short name.

    >>> layer_name("encoder.block.0"), layer_name("transformer.h.3")
    ('encoder 0', 'layer 3')
    """
    from .grids import STACKS

    stack, number, role = place(path)
    return f"{STACKS.get(stack, stack)} {number}" if number else role


def _index(rows: Sequence[Row], key: tuple[str, str, bool]) -> int:
    """A colour for each criterion and granularity, repaired or not."""
    ways = list(dict.fromkeys((str(r["criterion"]), granularity(r.get("granularity"))) for r in rows))
    return ways.index(key[:2])


def _edges(weights: WeightsFile) -> Any:
    """Edges for a logarithmic axis: the first bin, which begins at 0, is drawn as wide as the next one."""
    edges = np.array(weights["edges"], dtype=float)
    edges[0] = edges[1] ** 2 / edges[2] if len(edges) > 2 else edges[1] / 2
    return edges


def _by_kind(rows: Sequence[TargetWeights]) -> list[tuple[str, Any]]:
    """Per cent of each kind's weights in every bin."""
    found = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        counts = np.sum([row["counts"] for row in rows if row["kind"] == kind], 0)
        found.append((kind, 100 * counts / counts.sum()))
    return found


def _stairs(axes: Axes, edges: Any, rows: Sequence[TargetWeights], *, thin: bool = False) -> list[Any]:
    handles = []
    for kind, per_cent in _by_kind(rows):
        colour = KINDS.get(kind, GREY)
        axes.stairs(per_cent, edges, fill=True, color=colour, alpha=0.16)
        handles.append(axes.stairs(per_cent, edges, color=colour, linewidth=1.0 if thin else 1.6, label=_kind(kind)))
    return handles


def _kind(kind: str) -> str:
    return "all targets" if kind == ALL else f"{kind} targets"


def _decades(axes: Axes, edges: Any, *, inner: bool = False) -> None:
    """Ticks at powers of ten, as plain numbers; inner ones keep clear of the ends, where other axes begin."""
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    low, high = int(np.ceil(np.log10(edges[0]) - 1e-6)), int(np.floor(np.log10(edges[-1]) + 1e-2))
    powers = list(range(low, high + 1))
    if inner and len(powers) > 3:
        powers = powers[1:-1]
    step = -(-len(powers) // (2 if inner else 6))
    axes.xaxis.set_major_locator(FixedLocator([10.0**p for p in powers[::-1][::step]]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
