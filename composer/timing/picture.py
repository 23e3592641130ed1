"""What `compose speed` measured as a picture: milliseconds of each model on each shape of input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..report.kit import canvas
from ..report.kit.canvas import MARKERS, PALETTE
from .records import Part, Row, Speed

PARTS: dict[Part, str] = {
    "forward": "a pass",
    "prompt": "up to the first new token",
    "new tokens": "each further new token",
}


def draw(speed: Speed, output: Path) -> None:
    """Milliseconds by batch size and length, with quartiles and the ratio to the first model; PNG or SVG."""
    canvas.save(figure(speed), output)


def figure(speed: Speed) -> Figure:
    """A row of panels: one for each part and length."""
    panels = list(dict.fromkeys((part, length) for (part, _, length), _ in speed.cells()))
    with canvas.style():
        made = Figure(figsize=(max(5.2, 1.6 + 3.1 * len(panels)), 4.2), layout="constrained")
        grid = made.subplots(1, len(panels), squeeze=False)[0]
        for axes, (part, length) in zip(grid, panels, strict=True):
            rows = [row for row in speed.rows if (row.part, row.length) == (part, length)]
            _points(axes, speed, rows, f"milliseconds ({speed.clock} clock)" if axes is grid[0] else "")
            axes.set_title(f"{PARTS[part]}, length {length}")
        handles = grid[0].get_legend_handles_labels()[0]
        canvas.legend(made, handles, 2 if len(panels) > 1 else 1)
    return made


def _points(axes: Axes, speed: Speed, rows: Sequence[Row], label: str) -> None:
    sizes = list(dict.fromkeys(row.batch_size for row in rows))
    entries = list(dict.fromkeys(row.entry for row in rows))
    width, drawn = 0.8 / len(entries), list[float]()
    for place, entry in enumerate(entries):
        own = [row for row in rows if row.entry == entry]
        x = [sizes.index(row.batch_size) + (place - (len(entries) - 1) / 2) * width for row in own]
        spreads = [speed.seconds(row) for row in own]
        heights = [max(1e3 * spread.median, 1e-6) for spread in spreads]
        low = [max(0.0, 1e3 * (s.median - s.low)) for s in spreads]
        high = [max(0.0, 1e3 * (s.high - s.median)) for s in spreads]
        colour = PALETTE[entry % len(PALETTE)]
        look = {"fmt": MARKERS[entry % len(MARKERS)], "color": colour, "markersize": 5, "capsize": 2, "elinewidth": 1}
        axes.errorbar(x, heights, yerr=[low, high], label=speed.entries[entry].label, **look)  # type: ignore[arg-type]
        for at, row, height, more in zip(x, own, heights, high, strict=True):
            if row.faster:
                text = "≈" if row.faster.noisy else f"{row.faster.value:.2g}x"
                axes.annotate(text, (at, height + more), (0, 3), textcoords="offset points", ha="center", fontsize=7)
        drawn += [1e3 * end for s in spreads for end in (s.low, s.high) if end > 0]
    canvas.loss_axis(axes, drawn, label)
    axes.grid(visible=False, axis="x")
    axes.set_xticks(range(len(sizes)), [f"batch {size}" for size in sizes])
    axes.set_xlim(-0.6, len(sizes) - 0.4)
