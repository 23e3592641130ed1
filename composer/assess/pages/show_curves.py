"""The sections about whole models: metric, loss and seconds against the rate; calibration sets against tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...report.kit.components import Cell, Column, Figure, Section, Table, amount, dig, number, percent, seconds
from ...report.tables import metric_text
from ...tasks.metrics.table import metric_of
from ..contents import CalibrationCell, CalibrationFile, CurvesFile
from . import grids, plots
from .grids import Grid
from .parts import Drawing, Part, figure, table, unit_of


def part(content: CurvesFile) -> Part:
    """The section of a ``curves.json``."""
    dense = content["dense"]
    metric = metric_of(dig(dense, "metric", "name"))
    wanted: list[tuple[str, str, str, Any, Callable[[float], str] | None]] = [
        (
            "metric",
            f"{metric.label} against the rate",
            f"{metric.label} ({metric.unit})" if metric.unit else metric.label,
            dig(dense, "metric", "value"),
            metric_text(metric),
        ),
        ("loss", "Loss against the rate", f"loss ({unit_of(content)})", dense.get("loss"), None),
        ("seconds", "Time of a forward pass against the rate", "time (s)", dense.get("seconds"), None),
    ]
    drawings = []
    for value, label, axis, of_dense, ticks in wanted:
        if any(amount(row.get(value)) is not None for row in content["rows"]):
            picture = plots.curve_figure(content, value, axis, dense=amount(of_dense), show=ticks)
            drawings.append(Drawing(f"curves-{value}", picture, label, _say(content, value)))
    higher = dig(dense, "metric", "higher_is_better")
    better = "more" if (metric.higher_is_better if higher is None else higher) else "less"
    shapes = list(dict.fromkeys(plots.granularity(row.get("granularity")) for row in content["rows"]))
    lost = f" Attention loses heads, linear targets: {shapes[0]}." if len(shapes) == 1 and shapes[0] else ""
    caption = (
        f"Whole models, every target at the rate.{lost} {metric.label}: {better} is better. Dotted: the "
        "dense model, measured in the same way. Dashed: pruned only; solid: with what is left refitted."
    )
    parts: list[Table | Figure] = [figure("curves-figure", caption, drawings), curve_table(content)]
    section = Section("curves", "Curves", str(content.get("speed_note") or ""), parts)
    return Part(section, {drawing.name: drawing.picture for drawing in drawings})


def curve_table(content: CurvesFile) -> Table:
    """All points, the dense model's first."""
    dense = content["dense"]
    metric = metric_of(dig(dense, "metric", "name"))
    show = metric_text(metric)
    columns = [
        Column("criterion", numeric=False),
        Column("granularity", numeric=False),
        Column("repaired", numeric=False),
        Column("rate"),
        Column("removed", "of target weights"),
        Column("loss", unit_of(content)),
        Column(metric.label, metric.unit),
        Column("time", "forward pass"),
        Column("time", "ms per example"),
    ]
    first = ["dense", "–", "–", percent(0, 0), percent(0), number(dense.get("loss"), 3)]
    rows: list[list[str | Cell]] = [
        [*first, _figure(show, dig(dense, "metric", "value"), dense), seconds(dense.get("seconds")), _each(dense)]
    ]
    for row in content["rows"]:
        names = [
            str(row["criterion"]),
            plots.granularity(row.get("granularity")),
            "yes" if row.get("repaired") else "no",
        ]
        figures = [percent(row["rate"], 0), percent(row.get("removed_share")), number(row.get("loss"), 3)]
        rows.append([*names, *figures, _figure(show, row.get("metric"), row), seconds(row.get("seconds")), _each(row)])
    told = f"All {len(rows)} points as a table; below the metric its 95 % interval"
    return table("curve-points", told, columns, rows, folded=True)


def _figure(show: Callable[[float | None], str], value: Any, row: Mapping[str, Any]) -> Cell:
    """A metric with the 95 % interval of the examples that it is of."""
    ends = row.get("interval")
    return Cell(show(value), note=f"{show(ends[0])} to {show(ends[1])}" if ends else "")


def _each(row: Mapping[str, object]) -> str:
    each = amount(row.get("seconds_per_example"))
    return number(None if each is None else 1000 * each, 1)


def _say(content: CurvesFile, value: str) -> str:
    """Where each line starts and ends."""
    digits = {"metric": 2, "loss": 3, "seconds": 2}[value]
    lines = []
    for key, points in plots.series(content["rows"], value).items():
        (low, first), (high, last) = points[0], points[-1]
        ends = f"from {number(first, digits)} at {percent(low, 0)} to {number(last, digits)} at {percent(high, 0)}"
        lines.append(f"{plots.series_name(key)}: {ends}")
    return ". ".join(lines) + "." if lines else ""


def calibration_part(content: CalibrationFile) -> Part:
    """The section of a ``calibration.json``: a matrix of calibration sets and tasks."""
    rows = content["rows"]
    names, tasks = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("calibration", "task"))
    cells = {(str(row["calibration"]), str(row["task"])): row for row in rows}
    best = {
        task: min((loss for n in names if (loss := _loss(cells.get((n, task)))) is not None), default=None)
        for task in tasks
    }
    values = [[_over(_loss(cells.get((name, task))), best[task]) for task in tasks] for name in names]
    known = [value for line in values for value in line if value is not None]
    scale = grids.rises(known, f"loss above the column's best ({unit_of(content)})")
    grid = Grid("", _short(names), _short(tasks), values, [("evaluated on", len(tasks))])
    label = "Loss above the best of each task, by calibration set"
    picture = grids.grid_figure([grid], scale)
    drawing = Drawing("calibration", picture, label, "The losses are in the table below.")
    lead = (
        f"The same criterion ({content.get('criterion') or 'not named'}) at a rate of "
        f"{percent(content.get('rate'), 0)}, with masks chosen on different calibration sets."
    )
    caption = "Rows: what the masks were chosen on. Columns: what they were measured on."
    parts: list[Table | Figure] = [figure("calibration-figure", caption, [drawing]), calibration_table(content)]
    return Part(Section("calibration", "Calibration", lead, parts), {"calibration": picture})


def calibration_table(content: CalibrationFile) -> Table:
    """Loss and metric of each pair; the best loss of each task is marked."""
    rows = content["rows"]
    names, tasks = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("calibration", "task"))
    cells = {(str(row["calibration"]), str(row["task"])): row for row in rows}
    columns = [Column("calibration", numeric=False)]
    for task, heading in zip(tasks, _short(tasks), strict=True):
        metric = metric_of(next((cells[n, task].get("metric_name") for n in names if (n, task) in cells), None))
        columns += [Column("loss", unit_of(content), group=heading), Column(metric.label, metric.unit, group=heading)]
    lines = []
    for name, heading in zip(names, _short(names), strict=True):
        line: list[str | Cell] = [heading]
        for task in tasks:
            row = cells.get((name, task))
            losses = [loss for n in names if (loss := _loss(cells.get((n, task)))) is not None]
            mine = _loss(row)
            show = metric_text(metric_of(row.get("metric_name") if row else None))
            marked = len(losses) > 1 and mine is not None and mine == min(losses)
            metric_cell = _figure(show, row.get("metric"), row) if row else show(None)
            line += [Cell(number(mine, 3), better=marked, mark="best"), metric_cell]
        lines.append(line)
    return table("calibration-losses", "Loss and metric. Marked: the lowest loss of each task.", columns, lines)


def _short(names: Sequence[str]) -> list[str]:
    """The last parts of paths, where they tell them apart."""
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _loss(row: CalibrationCell | None) -> float | None:
    return amount(row.get("loss")) if row else None


def _over(loss: float | None, best: float | None) -> float | None:
    return None if loss is None or best is None else loss - best
