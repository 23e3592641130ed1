"""A family of small models beside the model that it was made from, as one picture: scores, sizes, speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..tasks.metrics.table import metric_of
from .kit import canvas
from .kit.canvas import GREY, PALETTE


def draw(rows: Sequence[Mapping[str, Any]], metric: str, output: Path) -> None:
    """Write the picture, as PNG or SVG by suffix.

    Args:
        rows: of :func:`composer.steps.shrunk_models.shrunk_models`; the first is the base model's.
        metric: the one that is shown.
    """
    known = metric_of(metric)
    faster = [row["faster"][-1] for row in rows]
    scores, sizes = [row["metrics"][metric] for row in rows], [row["bytes"] / 1e6 for row in rows]
    panels = {
        known.label: [(value, f"{value:{'.3f' if known.fraction else '.1f'}}") for value in scores],
        "MB on disk": [(value, f"{value:.2f}") for value in sizes],
        f"times as fast, {faster[0]['part']}, batch {faster[0]['batch_size']}": [
            (cell["value"], f"{cell['value']:.2f}{'?' * cell['noisy']}")
            for cell in faster  # ?: too noisy to say
        ],
    }
    if "not_zero" in rows[0]:
        counts = [row["not_zero"] / 1e6 for row in rows]
        panels["million parameters that are not 0"] = [(value, f"{value:.3g}") for value in counts]
    names = [Path(row["model"]).name for row in rows]
    with canvas.style():
        figure = Figure(figsize=(3.2 * len(panels), 1.0 + 0.38 * len(rows)), layout="constrained")
        for axes, (label, values) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
            _bars(axes, names, values)
            axes.set_title(label, fontsize=9)
    canvas.save(figure, output)


def _bars(axes: Axes, names: Sequence[str], values: Sequence[tuple[float, str]]) -> None:
    """One bar with its figure for each model, the base model's on top and grey."""
    places = [-i for i in range(len(names))]
    axes.barh(places, [x for x, _ in values], color=[GREY, *[PALETTE[0]] * (len(names) - 1)], height=0.62)
    for place, (x, text) in zip(places, values, strict=True):
        axes.text(x, place, f" {text}", va="center", fontsize=8)
    axes.set_yticks(places, names)
    axes.set_xlim(0, 1.25 * max(x for x, _ in values))
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
