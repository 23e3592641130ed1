"""Runtime against rate as a picture: times as fast as the dense model, masked and shrunk."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..report.kit import canvas
from ..report.kit.canvas import GREY, MARKERS, PALETTE
from .by_rate import FORMS, RatePoint
from .picture import PARTS

LOOKS = {"masked": ("--", PALETTE[1]), "shrunk": ("-", PALETTE[0])}


def rate_figure(rows: Sequence[RatePoint]) -> Figure:
    """A panel for each part: ratios with their intervals against the rate; dotted, what multiplications say."""
    parts = list(dict.fromkeys(row["part"] for row in rows))
    with canvas.style():
        made = Figure(figsize=(3.9 if len(parts) == 1 else 3.3 * len(parts), 3.1), layout="constrained")
        grid = made.subplots(1, len(parts), squeeze=False, sharey=True)[0]
        for axes, part in zip(grid, parts, strict=True):
            _lines(axes, [row for row in rows if row["part"] == part])
            if len(parts) > 1:
                axes.set_title(PARTS[part])  # type: ignore[index]
            axes.set_xlabel("heads and neurons removed (%)")
        grid[0].set_ylabel("times as fast as the dense model")
        canvas.legend(made, grid[0].get_legend_handles_labels()[0], 2)
    return made


def _lines(axes: Axes, rows: Sequence[RatePoint]) -> None:
    sizes = list(dict.fromkeys((row["batch_size"], row["length"]) for row in rows))
    axes.axhline(1, color=GREY, linewidth=0.8)
    for i, size in enumerate(sizes):
        which = f", batch {size[0]} of {size[1]} tokens" if len(sizes) > 1 else ""
        for form in FORMS:
            own = sorted((r for r in rows if r["form"] == form and (r["batch_size"], r["length"]) == size), key=_rate)
            x, faster = [100 * row["rate"] for row in own], [row["faster"] for row in own]
            middle = [one["value"] for one in faster]
            ends = [[one["value"] - one["low"] for one in faster], [one["high"] - one["value"] for one in faster]]
            line, colour = LOOKS[form]
            look = {"color": colour, "linestyle": line, "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
            axes.errorbar(x, middle, yerr=ends, capsize=2, elinewidth=1, label=f"{form}{which}", **look)  # type: ignore[arg-type]
            if form == "shrunk" and i == 0 and all(row["macs"] for row in own):
                dots = {"color": GREY, "linestyle": (0, (1, 2)), "label": "shrunk, by multiplications"}
                axes.plot(x, [row["macs"] or 1.0 for row in own], **dots)  # type: ignore[arg-type]
    axes.set_xticks(sorted({100 * row["rate"] for row in rows}))


def _rate(row: RatePoint) -> float:
    return row["rate"]
