"""A family of small models beside the model that it was made from: a picture, a table, and one line of text.

Rows are those of :func:`composer.steps.shrunk_models.shrunk_models`; the first is the base model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..tasks.metrics.table import metric_of
from .kit import canvas
from .kit.canvas import GREY, PALETTE
from .kit.components import DASH, Cell, Column, Section, Table, Tile, number
from .kit.components import Figure as Drawing

Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, metric: str, output: Path) -> None:
    """Write the picture, as PNG or SVG by suffix."""
    canvas.save(figure_of(rows, metric), output)


def section_of(rows: Rows, metric: str | None) -> Section:
    """What a page says of a family; ``metric`` is the one that the picture shows."""
    base = Path(rows[0]["model"]).name
    lead = f"Each wish or configuration as a smaller model: measured beside {base} on the test split, timed in turn."
    picture = canvas.inline(figure_of(rows, metric), "family", f"The family beside {base}, as in the table", scale=1.4)
    return Section("family", "The small models", lead, [table_of(rows), Drawing("family-figure", "", [picture])])


def tiles_of(rows: Rows, metric: str | None) -> list[Tile]:
    """How fast and how good each small model is."""
    known = metric_of(metric)
    return [
        Tile(
            _times(row["faster"][-1]),
            f"as fast: {Path(row['model']).name}, {known.label} {number(row['metrics'][known.name], known.decimals)}",
        )
        for row in rows[1:]
    ]


def text_of(rows: Rows, metric: str | None) -> str:
    """One line for those who read nothing else."""
    known = metric_of(metric)

    def said(row: Mapping[str, Any]) -> str:
        # Single weights that are gone leave a file as large as it was.
        size = (
            f"{row['not_zero'] / 1e6:.3g} million parameters" if "not_zero" in row else f"{row['bytes'] / 1e6:.2g} MB"
        )
        return f"{size} with {known.label} {number(row['metrics'][known.name], known.decimals)}"

    base, *made = rows
    smaller = all(row["bytes"] < base["bytes"] or row["parameters"] < base["parameters"] for row in made)
    models = f"{len(made)} {'smaller ' * smaller}model{'s' * (len(made) != 1)}"
    return f"From {Path(base['model']).name} ({said(base)}) came {models}: {', '.join(map(said, made))}"


def table_of(rows: Rows) -> Table:
    """Speed, quality and size of each."""
    metrics = [metric_of(name) for name in rows[0]["metrics"]]
    timed = [f"{cell['part']}, batch {cell['batch_size']}" for cell in rows[0]["faster"]]
    wished, sparse = any(row.get("wish") for row in rows), "not_zero" in rows[0]
    columns = [
        Column("model", numeric=False),
        *([Column("wish", numeric=False)] * wished),
        *(Column(name, group="times as fast") for name in timed),
        *(Column(metric.label) for metric in metrics),
        Column("validation loss"),
        Column("MB", group="size"),
        Column("parameters", "million", group="size"),
        *([Column("not zero", "million", group="size")] * sparse),
    ]
    lines = []
    for row in rows:
        line = [Cell(Path(row["model"]).name), *([Cell(row.get("wish") or DASH)] * wished)]
        line += [Cell(_times(cell)) for cell in row["faster"]]
        line += [Cell(number(row["metrics"].get(metric.name), metric.decimals)) for metric in metrics]
        line += [Cell(number(row["loss"], 3)), Cell(number(row["bytes"] / 1e6, 1))]
        line += [Cell(number(row["parameters"] / 1e6, 1)), *([Cell(number(row.get("not_zero", 0) / 1e6, 1))] * sparse)]
        lines.append(line)
    return Table("family-table", "Times as fast as the base model; ?: too noisy to say.", columns, lines)


def _times(cell: Mapping[str, Any]) -> str:
    return f"{cell['value']:.2f}x{'?' * cell['noisy']}"


def figure_of(rows: Rows, metric: str | None) -> Figure:
    """Bars of each model: the metric, bytes, speed."""
    known = metric_of(metric)
    faster = [row["faster"][-1] for row in rows]
    scores, sizes = [row["metrics"][known.name] for row in rows], [row["bytes"] / 1e6 for row in rows]
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
    return figure


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
