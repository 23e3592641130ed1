"""``evaluation.html``: domains by models, what is sure of the differences, and single examples to look into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Drawing

from ...models.no_targets import said
from ...report.kit import canvas
from ...report.kit.canvas import GREY, PALETTE
from ...report.kit.components import (
    Cell,
    Column,
    Figure,
    Section,
    Table,
    Tile,
    number,
    percent,
    provenance_facts,
    write_page,
)
from ...tasks.metrics.table import metric_of
from .comparison import verdict

PAGE = "evaluation.html"
ACROSS = 3
Row = Mapping[str, Any]


def write_evaluation(folder: Path, content: Row, examples: Sequence[Row], headings: Mapping[str, str]) -> Path:
    """Write the page.

    Args:
        content: as ``evaluation.json`` holds it.
        examples: per task some examples with the answers of all its models.
        headings: suite -> its name for readers.
    """
    models = [model["label"] for model in content["models"]]
    suites = list(dict.fromkeys(row["suite"] for row in content["rows"]))
    sections = [
        _overview(content, models),
        *([_differences(content, models)] if len(models) > 1 else []),
        *(_suite(suite, headings[suite], content, models, examples) for suite in suites),
    ]
    write_page(
        folder / PAGE,
        "report.html",
        title="What the models are good for",
        verdict=_verdict(content, models),
        tiles=[Tile(str(len(models)), "models"), Tile(str(len(content["rows"])), "tasks")],
        facts=[(m["label"], _about(m)) for m in content["models"]],
        sections=sections,
        links=[(s.name, s.heading) for s in sections] + [("again", "Repeat it")],
        command=content["record"].get("command"),
        provenance=provenance_facts(content["record"]),
        recipe="",
    )
    return folder / PAGE


def _about(model: Row) -> str:
    """Folder and sparsity of a model, and how much no sparsity speaks of."""
    text = f"{model['folder']}; {percent(model['sparsity'])} of its targets zero"
    return f"{text}; {outside}" if (outside := said(model.get("no_targets"))) else text


def _verdict(content: Row, models: Sequence[str]) -> str:
    parts = []
    for model in models[1:]:
        words = [verdict(row["pairs"][model]) for row in content["rows"] if model in row["pairs"]]
        worse, better = (sum(word == kind for word in words) for kind in ("worse", "better"))
        parts.append(f"{model} is worse than {models[0]} on {worse} of {len(words)} tasks, better on {better}.")
    return " ".join(parts) or "One model; differences show where a second one is evaluated beside it."


def _figure(name: str, value: Any) -> str:
    return number(value, metric_of(name).decimals)


def _measured(measure: Row) -> Cell:
    """A figure with its standard error, and the interval below it."""
    name = measure["name"]
    if measure["low"] is None:
        return Cell(_figure(name, measure["value"]))
    ends = f"{_figure(name, measure['low'])} to {_figure(name, measure['high'])}"
    return Cell(f"{_figure(name, measure['value'])} ± {_figure(name, measure['error'])}", note=ends)


def _overview(content: Row, models: Sequence[str]) -> Section:
    rows = [
        [
            Cell(row["heading"]),
            Cell(metric_of(first["name"]).label),
            *(_measured(row["cells"][m][i]) if m in row["cells"] else Cell("–") for m in models),
            Cell(_figure(first["name"], first["chance"])),
            Cell(f"{row['examples']:,}"),
        ]
        for row in content["rows"]
        for i, first in enumerate(next(iter(row["cells"].values())))
    ]
    rows += [
        [
            Cell(average["heading"]),
            Cell(f"average of {average['groups']} of {average['of']}"),
            *(
                Cell(f"{own['value']:.3f} ± {own['error']:.3f}" if (own := average["cells"].get(m)) else "–")
                for m in models
            ),
            Cell("–"),
            Cell("–"),
        ]
        for average in content["averages"]
    ]
    columns = [Column("task", numeric=False), Column("metric", numeric=False), *map(Column, models)]
    table = Table("figures", "Figures ± standard error", [*columns, Column("chance"), Column("examples")], rows)
    notes = "".join(f" {note[0].upper()}{note[1:]}." for note in content["notes"])
    lead = (
        "The first metric of each task is drawn, with its 95 % interval; the grey line is chance. In the table each "
        "figure has its standard error, and below it the interval: Wilson's for shares of right answers, else the "
        f"bootstrap's.{notes}"
    )
    svg = canvas.inline(_bars(content["rows"], models), "bars", "Figures of each task by model", scale=1.25)
    return Section("overview", "Domains by models", lead, (Figure("by-model", "Tasks", [svg], wide=True), table))


def _bars(rows: Sequence[Row], models: Sequence[str]) -> Drawing:
    """Small axes for each task: a bar for each model."""
    across = min(ACROSS, len(rows))
    down = -(-len(rows) // across)
    with canvas.style():
        figure = Drawing(figsize=(2.8 * across, 1.1 + (0.5 + 0.2 * len(models)) * down), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for place, row in zip(axes, rows, strict=False):
            for i, model in enumerate(models):
                if model in row["cells"]:
                    _bar(place, i, row["cells"][model][0])
            place.set_yticks(range(len(models)), models if place in axes[::across] else [""] * len(models), fontsize=7)
            place.set_ylim(len(models) - 0.4, -0.6)
            place.tick_params(labelsize=7, length=2)
            first = next(iter(row["cells"].values()))[0]
            place.set_title(f"{row['heading']}: {metric_of(first['name']).label}", fontsize=7.5, loc="left")
            if first["chance"] is not None and first["name"] != "perplexity":
                place.axvline(first["chance"], color=GREY, linewidth=1)
        for place in axes[len(rows) :]:
            place.set_axis_off()
    return figure


def _bar(axes: Any, i: int, measure: Row) -> None:
    value = measure["value"] or 0.0
    axes.barh(i, value, height=0.62, color=PALETTE[i % len(PALETTE)])
    if measure["low"] is not None:
        axes.plot([measure["low"], measure["high"]], [i, i], color=canvas.INK, linewidth=1.2, solid_capstyle="butt")


def _differences(content: Row, models: Sequence[str]) -> Section:
    columns = [Column("task", numeric=False), Column("difference"), Column("95 % interval"), Column("p, adjusted")]
    tables = []
    for i, model in enumerate(models[1:]):
        rows = []
        for row in content["rows"]:
            pair = row["pairs"].get(model)
            if pair is None:
                continue
            if pair.get("low") is None:
                rows.append([Cell(row["heading"], note=verdict(pair)), Cell("–"), Cell("–"), Cell("–")])
                continue
            name = pair["measure"]
            ends = f"{_figure(name, pair['low'])} to {_figure(name, pair['high'])}"
            word = verdict(pair)
            difference = Cell(_figure(name, pair["value"]), better=word == "better", mark="really better")
            how = Cell(number(pair["adjusted_p"], 3), note=pair["how"])
            rows.append([Cell(row["heading"], note=word), difference, Cell(ends), how])
        tables.append(Table(f"against-{i}", f"{model} less {models[0]}", [*columns], rows))
    lead = (
        "On the same examples, by the first metric of each task. The word below a task says what is real: better "
        "(marked) or worse where the p-value, adjusted for the number of tasks (Holm), is below 5 %. Of others the "
        "interval says how large they could still be."
    )
    return Section("differences", "Is it real?", lead, tables)


def _suite(suite: str, heading: str, content: Row, models: Sequence[str], examples: Sequence[Row]) -> Section:
    return Section(suite, heading, "", [*_examples(suite, content, examples)])


def _examples(suite: str, content: Row, examples: Sequence[Row]) -> Iterator[Table]:
    """A folded table of examples for each task."""
    own = {row["task"]: row for row in content["rows"] if row["suite"] == suite}
    for shown in examples:
        if shown["task"] not in own:
            continue
        names = [Column(name, numeric=False) for name in ("example", "right answer", *shown["models"])]
        rows = [
            [
                Cell(_short(f"{one['id']}: {one['problem']}")),
                Cell(_short(one["gold"])),
                *(
                    Cell(_short(answer), better=bool(right), mark="right")
                    for answer, right in zip(one["answers"], one["right"], strict=True)
                ),
            ]
            for one in shown["examples"]
        ]
        where = f"; {shown['differ']:,} of {shown['of']:,} answered otherwise" if len(shown["models"]) > 1 else ""
        caption = f"{shown['heading']}: some examples{where}"
        yield Table(f"examples-{shown['task']}", caption, names, rows, folded=True)


def _short(text: str, most: int = 240) -> str:
    """The end of a prompt is the problem itself; of an answer the beginning counts as much."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"
