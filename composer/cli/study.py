"""The tables of a calibration study: pruned with, by measured on; and what the masks have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from composer.tasks.metrics.table import metric_of

from .format import NONE, number, percent
from .tables import Sheet

MARKS = (
    "*: best of its column, and every other set is really worse. ~: the examples cannot tell it from the best figure."
)


def study(told: Mapping[str, Any]) -> Iterator[Sheet]:
    """A matrix and its overlaps for each criterion, granularity and rate."""
    for matrix in told["matrices"]:
        way = f"{matrix['criterion']}, {matrix['granularity']}, {percent(matrix['rate'])}"
        yield _matrix(f"Pruned with × measured on: {way}", told, matrix)
        if matrix["overlaps"]:
            yield _overlaps(f"Removed by both: {way}", matrix)


def curves_of_suites(told: Mapping[str, Any]) -> Iterator[Sheet]:
    """Each task of this model against the rate, and whether a difference from the dense model is sure."""
    from composer.evaluation.suites.comparison import verdict_on

    model = told["models"][0]
    for task in model["tasks"]:
        title = f"{task['heading']}: {metric_of(task['measure']).label} against the rate"
        sheet = Sheet(
            title,
            ["pruned by", "refitted", "verdict"],
            ["rate", "removed", "figure", "p, adjusted"],
            "± standard error",
        )
        sheet.add_row("dense", "", "", "", "", _figure(task["measure"], task["dense"], task["dense_error"]), NONE)
        for point in model["points"]:
            for cell in (cell for cell in point["cells"] if cell["task"] == task["task"]):
                against = cell["against_dense"]
                name = f"{point['criterion']}, {point['granularity']}", "yes" if point["repaired"] else "no"
                shares = percent(point["rate"]), percent(point["sparsity"])
                figure = _figure(task["measure"], cell["value"], cell["error"])
                sheet.add_row(*name, verdict_on(against, task), *shares, figure, number(against.get("adjusted_p"), 3))
        yield sheet


def _matrix(title: str, told: Mapping[str, Any], matrix: Mapping[str, Any]) -> Sheet:
    tasks = told["tasks"]
    heads = [f"{task['heading']}\n{metric_of(task['measure']).label}" for task in tasks]
    sheet = Sheet(title, ["pruned with"], heads, f"± standard error. {MARKS}")
    sheet.add_row("dense", *(_figure(task["measure"], task["dense"], task["dense_error"]) for task in tasks))
    cells = {(cell["calibration"], cell["task"]): cell for cell in matrix["cells"]}
    for one in told["sets"]:
        line = []
        for task in tasks:
            cell = cells[one["name"], task["task"]]
            mark = "*" if cell["best"] else "~" if cell["as_good"] else " "
            line.append(f"{_figure(task['measure'], cell['value'], cell['error'])} {mark}")
        sheet.add_row(one["name"], *line)
    return sheet


def _figure(name: str, value: float | None, error: float | None) -> str:
    decimals = metric_of(name).decimals
    return f"{number(value, decimals)} ± {number(error, decimals)}" if error is not None else number(value, decimals)


def _overlaps(title: str, matrix: Mapping[str, Any]) -> Sheet:
    sheet = Sheet(title, ["a", "b"], ["overlap", "by chance", "least of a layer"], "Jaccard of the removed weights")
    for pair in matrix["overlaps"]:
        least = min((layer["jaccard"] for layer in pair["layers"] if layer["jaccard"] is not None), default=None)
        shown = (NONE if share is None else percent(share) for share in (pair["jaccard"], pair["chance"], least))
        sheet.add_row(pair["a"], pair["b"], *shown)
    return sheet
