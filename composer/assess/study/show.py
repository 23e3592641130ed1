"""The section of a ``study.json``: matrices of what was pruned with and measured on, and the overlap of the masks."""

from __future__ import annotations

from collections.abc import Callable

from ...evaluation.suites.comparison import verdict_on
from ...report.kit.canvas import PALETTE
from ...report.kit.components import Cell, Column, Figure, Section, Table, number, percent
from ...report.kit.labels import short_name
from ...tasks.metrics.table import metric_of
from ..pages import grids
from ..pages.grids import Grid, Scale
from ..pages.parts import Drawing, Part, figure, table
from .contents import StudyCell, StudyFile, StudyMatrix, StudyTask
from .rates import has_curves, rates_figure

BEST, TIED = "*", "~"
RATES = (
    "Each task against the rate. Colours: sets; dashes and marks: ways of pruning; dotted: the dense model. Masks "
    "bring no speed; what shrunk models take is measured by --parts runtime."
)
LEAST = 0.01
"""A share lost that has the full tint where none is larger."""
MARKS = (
    "Marked * is the best set of a column where every other one is really worse (paired tests on the same examples, "
    "adjusted together, 5 %); ~ are those that the examples cannot tell from the best figure."
)


def part(content: StudyFile) -> Part:
    """The section."""
    lost = _lost_scale(content)
    matrix_grids = [_matrix(content, matrix) for matrix in content["matrices"]]
    drawings = [Drawing("study", grids.grid_figure(matrix_grids, lost), "Pruned with by measured on", summary(content))]
    parts: list[Table | Figure] = [figure("study-figure", f"Rows: what it was pruned with. {MARKS}", drawings)]
    if has_curves(content):
        drawings.append(Drawing("study-rates", rates_figure(content), "Each task against the rate", ""))
        parts.append(figure("study-rates-figure", RATES, drawings[-1:]))
    parts += [_figures(content, matrix, i) for i, matrix in enumerate(content["matrices"])]
    shared = [_overlap(content, matrix) for matrix in content["matrices"] if matrix["overlaps"]]
    if shared:
        scale = grids.percents("removed by both, of what either removed (Jaccard, %)", PALETTE[2])
        drawings.append(Drawing("study-masks", grids.grid_figure(shared, scale), "Overlap of masks, by set", ""))
        caption = f"Masks of any two sets. Random masks as large would share {_by_chance(content)}."
        parts.append(figure("study-masks-figure", caption, drawings[-1:]))
        parts += [_layers(matrix, i) for i, matrix in enumerate(content["matrices"])]
    parts.append(_sets(content))
    lead = f"{_lead(content)} {' '.join(f'{note[0].upper()}{note[1:]}.' for note in content['notes'])}".strip()
    return Part(Section("study", "Calibration study", lead, parts), {d.name: d.picture for d in drawings})


def way(matrix: StudyMatrix) -> str:
    """Criterion, granularity and rate."""
    return f"{matrix['criterion']}, {matrix['granularity']}, {percent(matrix['rate'], 0)}"


def mark_of(cell: StudyCell) -> str:
    """:data:`BEST`, :data:`TIED` or nothing."""
    return BEST if cell["best"] else TIED if cell["as_good"] else ""


def summary(content: StudyFile) -> str:
    """How often one set was really best, in a sentence."""
    columns = [(matrix, task["task"]) for matrix in content["matrices"] for task in content["tasks"]]
    best = [
        cell["calibration"]
        for matrix, task in columns
        for cell in matrix["cells"]
        if cell["task"] == task and cell["best"]
    ]
    times = [f"{name} on {best.count(name)}" for name in dict.fromkeys(best)]
    where = f": {', '.join(times)}" if times else ""
    return f"One calibration set is surely the best on {len(best)} of {len(columns)} columns{where}."


def _lead(content: StudyFile) -> str:
    refit = "and what is left refitted on it" if content["repair"] else "without any refit"
    return (
        f"The dense model pruned once with each calibration set, {refit}; nothing is trained. {summary(content)} "
        "A tint is the share of what the dense model is better than chance (of perplexities: of their logarithms) that "
        "is lost."
    )


def _lost_scale(content: StudyFile) -> Scale:
    """Tints up to the largest share that is lost, so that small differences can be seen; the legend has the numbers."""
    shares = [cell["lost"] for matrix in content["matrices"] for cell in matrix["cells"] if cell["lost"] is not None]
    most = max([LEAST, *shares])
    marks = (0.0, most / 3, 2 * most / 3, most)
    return Scale("lost of what the dense model is above chance", lambda v: v / most, lambda v: percent(v, 1), marks)


def _names(content: StudyFile) -> list[str]:
    return [one["name"] for one in content["sets"]]


def _cells(matrix: StudyMatrix) -> dict[tuple[str, str], StudyCell]:
    return {(cell["calibration"], cell["task"]): cell for cell in matrix["cells"]}


def _matrix(content: StudyFile, matrix: StudyMatrix) -> Grid:
    tasks, cells = content["tasks"], _cells(matrix)
    rows = [[cells[name, task["task"]] for task in tasks] for name in _names(content)]
    texts = [[_marked(task, cell) for task, cell in zip(tasks, row, strict=True)] for row in rows]
    dense = [_with_error(task, task["dense"], task["dense_error"]) for task in tasks]
    values: list[list[float | None]] = [[0.0] * len(tasks), *([cell["lost"] for cell in row] for row in rows)]
    heads = [f"{task['heading']}: {metric_of(task['measure']).label}" for task in tasks]
    return Grid(way(matrix), ["dense", *_names(content)], heads, values, [("measured on", len(tasks))], [dense, *texts])


def _marked(task: StudyTask, cell: StudyCell) -> str:
    return f"{_with_error(task, cell['value'], cell['error'])} {mark_of(cell)}".strip()


def _with_error(task: StudyTask, value: float | None, error: float | None) -> str:
    """A figure ± its standard error, where that is known."""
    decimals = metric_of(task["measure"]).decimals
    return number(value, decimals) + (f" ± {number(error, decimals)}" if error is not None else "")


def _figures(content: StudyFile, matrix: StudyMatrix, i: int) -> Table:
    """Every figure with its error and interval, and how it compares with the best of its column."""
    columns = [
        Column("measured on", numeric=False),
        Column("pruned with", numeric=False),
        *(Column(name) for name in ("figure", "95 % interval", "lost", "less than the best", "p, adjusted")),
    ]
    rows: list[list[str | Cell]] = []
    cells = _cells(matrix)
    for task in content["tasks"]:
        show = _shown(task)
        heading = f"{task['heading']}, {metric_of(task['measure']).label}"
        rows.append([heading, "dense", f"{show(task['dense'])} ± {show(task['dense_error'])}", "–", "–", "–", "–"])
        for name in _names(content):
            cell = cells[name, task["task"]]
            against = cell["against_best"] or {}
            ends = f"{show(cell['low'])} to {show(cell['high'])}"
            value = Cell(f"{show(cell['value'])} ± {show(cell['error'])}", better=cell["best"], mark="really best")
            note = "" if not against else verdict_on(against, task)
            worse = Cell(show(against.get("value")), note=note)
            rows.append(
                [heading, name, value, ends, percent(cell["lost"], 0), worse, number(against.get("adjusted_p"), 3)]
            )
    caption = f"{way(matrix)}: all figures ± standard error ({percent(matrix['sparsity'])} of the targets zero)"
    return table(f"study-{i}", caption, columns, rows, folded=True)


def _shown(task: StudyTask) -> Callable[[float | None], str]:
    decimals = metric_of(task["measure"]).decimals
    return lambda value: number(value, decimals)


def _overlap(content: StudyFile, matrix: StudyMatrix) -> Grid:
    names = _names(content)
    shared = {frozenset((pair["a"], pair["b"])): pair["jaccard"] for pair in matrix["overlaps"]}
    values = [[1.0 if a == b else shared.get(frozenset((a, b))) for b in names] for a in names]
    return Grid(way(matrix), names, names, values)


def _by_chance(content: StudyFile) -> str:
    chances = [
        pair["chance"] for matrix in content["matrices"] for pair in matrix["overlaps"] if pair["chance"] is not None
    ]
    low, high = (percent(end, 0) for end in (min(chances, default=None), max(chances, default=None)))
    return low if low == high else f"{low} to {high}"


def _layers(matrix: StudyMatrix, i: int) -> Table:
    """The overlap of every two sets, by layer and in all."""
    names = [layer["layer"] for layer in matrix["overlaps"][0]["layers"]] if matrix["overlaps"] else []
    columns = [Column("a", numeric=False), Column("b", numeric=False), Column("in all"), Column("by chance")]
    rows = [
        [
            *(pair["a"], pair["b"], percent(pair["jaccard"]), percent(pair["chance"])),
            *(percent(layer["jaccard"]) for layer in pair["layers"]),
        ]
        for pair in matrix["overlaps"]
    ]
    heads = [Column(short_name([name])) for name in names]
    return table(f"study-layers-{i}", f"{way(matrix)}: overlap by layer", [*columns, *heads], rows, folded=True)


def _sets(content: StudyFile) -> Table:
    """Which files the sets are."""
    columns = [Column(name, numeric=False) for name in ("set", "from", "read as")]
    rows = [[one["name"], one["place"], one["read_as"]] for one in content["sets"]]
    return table("study-sets", "Calibration sets", columns, rows)
