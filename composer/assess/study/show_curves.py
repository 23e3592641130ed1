"""The section of a ``suite-curves.json``: each task against the rate, runtime beside it, and every figure."""

from __future__ import annotations

from collections.abc import Sequence

from ...evaluation.suites.comparison import verdict_on
from ...report.kit.components import Cell, Column, Figure, Section, Table, number, percent
from ...tasks.metrics.table import metric_of
from ...timing.by_rate import RatePoint, runtime_note
from ..pages.parts import Drawing, Part, figure, table
from .contents import CurvedModel, SuiteCurvesFile
from .curves_picture import curves_figure

MASKS = "Masks bring no speed, as a zero is multiplied like any other; what is gone (compose shrink) does."
UNTIMED = "What models take at these rates is measured by --parts runtime; it then stands beside the curves."


def part(content: SuiteCurvesFile, runtime: Sequence[RatePoint]) -> Part:
    """The section.

    Args:
        runtime: rows of this model's ``runtime.json``; those of the models beside it stand in ``content``.
    """
    models = content["models"]
    runtimes = {model["name"]: runtime if i == 0 else model["runtime"] for i, model in enumerate(models)}
    drawing = Drawing("suite-curves", curves_figure(content, runtimes), "Tasks against the rate", summary(content))
    parts: list[Table | Figure] = [figure("suite-curves-figure", _caption(content), [drawing])]
    parts += [_figures(model, i) for i, model in enumerate(models)]
    told = [f"{name}: {note}" for name, rows in runtimes.items() if rows and (note := runtime_note(rows))]
    notes = [f"{note[0].upper()}{note[1:]}." for note in content["notes"]]
    lead = " ".join([summary(content), MASKS, *(told or [UNTIMED]), *notes])
    return Part(
        Section("suite-curves", "What it is still good for, against the rate", lead, parts),
        {drawing.name: drawing.picture},
    )


def summary(content: SuiteCurvesFile) -> str:
    """Up to which rate nothing was surely lost, task by task, for the model whose assessment this is."""
    model = content["models"][0]
    told = []
    for task in model["tasks"]:
        lost = [
            point["rate"]
            for point in model["points"]
            for cell in point["cells"]
            if cell["task"] == task["task"] and verdict_on(cell["against_dense"], task) == "worse"
        ]
        rates = [point["rate"] for point in model["points"]]
        where = f"from {percent(min(lost), 0)}" if lost else f"nowhere up to {percent(max(rates), 0)}"
        told.append(f"{task['heading']} {where}")
    return f"Surely worse than dense: {', '.join(told)}." if told else ""


def _caption(content: SuiteCurvesFile) -> str:
    models = content["models"]
    caption = "Each task against the rate; bars are 95 % intervals, dotted lines the dense model."
    if len(models) < 2:
        return caption
    caption += " Colours: models."
    data: dict[str, set[str]] = {}
    for model in models:
        for task, digest in model["data"].items():
            data.setdefault(task, set()).add(digest)
    if other := [task for task, digests in data.items() if len(digests) > 1]:
        caption += f" Not measured on the same examples: {', '.join(other)}."
    if any(task["measure"] == "perplexity" for model in models for task in model["tasks"]):
        caption += " Perplexities of models with different tokenizers do not compare."
    return caption


def _figures(model: CurvedModel, i: int) -> Table:
    """Every figure with its error and interval, and how it compares with the dense model."""
    names = ("rate", "removed", "figure", "95 % interval", "lost", "against dense", "p, adjusted")
    columns = [
        *(Column(name, numeric=False) for name in ("measured on", "pruned by", "refitted")),
        *(Column(name) for name in names),
    ]
    rows: list[list[str | Cell]] = []
    for task in model["tasks"]:
        decimals = metric_of(task["measure"]).decimals
        heading = f"{task['heading']}, {metric_of(task['measure']).label}"
        dense = f"{number(task['dense'], decimals)} ± {number(task['dense_error'], decimals)}"
        rows.append([heading, "dense", "", "", "", dense, *["–"] * 4])
        for point in model["points"]:
            for cell in (cell for cell in point["cells"] if cell["task"] == task["task"]):
                against = cell["against_dense"]
                ends = f"{number(cell['low'], decimals)} to {number(cell['high'], decimals)}"
                rows.append(
                    [
                        *(
                            heading,
                            f"{point['criterion']}, {point['granularity']}",
                            "yes" if point["repaired"] else "no",
                        ),
                        *(percent(point["rate"], 0), percent(point["sparsity"])),
                        *(f"{number(cell['value'], decimals)} ± {number(cell['error'], decimals)}", ends),
                        percent(cell["lost"], 0),
                        Cell(number(against.get("value"), decimals), note=verdict_on(against, task)),
                        number(against.get("adjusted_p"), 3),
                    ]
                )
    caption = f"{model['name']}: all figures ± standard error, compared with dense on the same examples"
    return table(f"suite-curves-{i}", caption, columns, rows, folded=True)
