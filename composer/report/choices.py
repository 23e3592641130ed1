"""What ``compose choose`` chose, as pictures and a page: what each layer keeps, loss and speed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.figure import FigureBase

from ..scheme.layout import unnumbered
from .kit import canvas
from .kit.canvas import FAINT, GREY, MARKERS, PALETTE, RULE
from .kit.components import Cell, Column, Figure, Section, Table, Tile, number, percent, provenance_facts, write_page
from .kit.labels import short_name

Told = Mapping[str, Any]
"""The content of ``choice.json``."""

SIZES = {"macs": "Multiplications", "parameters": "Parameters", "bytes": "Bytes"}
KEPT = "What each layer keeps: bars are parts of its heads or neurons, numbers are counts, per cents single weights."
CURVE = "Validation loss without any training against measured speed, or what is left where no wish is about time."
CLOCK = "How many times as fast the table of seconds said, and the clock. On the line both agree."


def draw(told: Told, output: Path) -> None:
    """What each layer keeps, and beside it the losses where they were measured; PNG or SVG by suffix."""
    with canvas.style():
        rows, columns = _shape(told)
        widths = [1.3 + 1.75 * columns, *([4.2] if told["dense"] else [])]
        made = Drawing(figsize=(sum(widths), max(2.6, 0.9 + 0.95 * rows)), layout="constrained")
        parts = made.subfigures(1, len(widths), width_ratios=widths, squeeze=False)
        _kept(parts[0, 0], told)
        if told["dense"]:
            _curve(parts[0, 1], told)
    canvas.save(made, output)


def kept_figure(told: Told) -> Drawing:
    """Rows of small panels, one for each kind of part, a column for each configuration; a bar for each layer."""
    rows, columns = _shape(told)
    with canvas.style():
        made = Drawing(figsize=(1.3 + 1.75 * columns, 0.6 + 0.95 * rows), layout="constrained")
        _kept(made, told)
    return made


def curve_figure(told: Told) -> Drawing:
    """Loss against measured speed, or multiplications; chosen and uniform."""
    with canvas.style():
        made = Drawing(figsize=(4.6, 3.2), layout="constrained")
        _curve(made, told)
    return made


def clock_figure(told: Told) -> Drawing:
    """Predicted against measured speed."""
    with canvas.style():
        made = Drawing(figsize=(4.0, 3.2), layout="constrained")
        axes = made.subplots()
        for i, (name, rows) in enumerate(_sides(told)):
            x = [1 / row["left"]["seconds"] for row in rows]
            y = [row["faster"]["value"] for row in rows]
            errors = [[v - row["faster"]["low"] for v, row in zip(y, rows, strict=True)]]
            errors.append([row["faster"]["high"] - v for v, row in zip(y, rows, strict=True)])
            look: dict[str, Any] = {"fmt": MARKERS[i], "color": PALETTE[i], "capsize": 2, "elinewidth": 1}
            axes.errorbar(x, y, yerr=errors, label=name, **look)
        ends = [*axes.get_xlim(), *axes.get_ylim(), 1.0]
        axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=GREY, linewidth=1, zorder=0)
        axes.set_xlabel("times as fast by the table")
        axes.set_ylabel("times as fast by the clock")
        canvas.legend(made, axes.get_legend_handles_labels()[0], 2)
    return made


def _shape(told: Told) -> tuple[int, int]:
    return len(_kinds(told)), len(told["choices"])


def _kinds(told: Told) -> dict[str, list[str]]:
    """Kind of part -> paths of its parts, in execution order."""
    kinds: dict[str, list[str]] = {}
    for path in told["units"]:
        kinds.setdefault(unnumbered(path), []).append(path)
    return kinds


def _kept(figure: FigureBase, told: Told) -> None:
    kinds = _kinds(told)
    grid = figure.subplots(len(kinds), len(told["choices"]), squeeze=False)
    for row, paths in zip(grid, kinds.values(), strict=True):
        for axes, choice in zip(row, told["choices"], strict=True):
            _bars(axes, [_bar(told, choice, path) for path in paths])
        row[0].set_ylabel(_noun(paths, told), fontsize=7.5)
    for axes, choice in zip(grid[0], told["choices"], strict=True):
        axes.set_title(wish_text(choice["wish"]), fontsize=8.5)
    for axes in grid[-1]:
        axes.set_xlabel("layer", fontsize=7.5)


class _Bar(NamedTuple):
    """The share of a part that is left, its colour, and what is written above it."""

    share: float
    colour: str
    text: str


def _bar(told: Told, choice: Told, path: str) -> _Bar:
    """Of units, by their number; of a part that loses single weights (never its units too) by their share."""
    kept, whole, gone = choice["kept"][path], told["units"][path], choice["weights"].get(path)
    if gone:
        return _Bar(1 - gone, PALETTE[1], f"{1 - gone:.0%}")
    return _Bar(kept / whole, PALETTE[0] if whole < 64 else PALETTE[2], f"{kept}" if kept else "gone")


def _bars(axes: Axes, bars: Sequence[_Bar]) -> None:
    places = range(len(bars))
    axes.bar(places, [1.0] * len(bars), color="none", edgecolor=RULE, linewidth=0.7)
    axes.bar(places, [bar.share for bar in bars], color=[bar.colour for bar in bars])
    size = 6.5 if len(bars) <= 8 else 5
    for x, bar in zip(places, bars, strict=True):
        axes.text(x, 1.04, bar.text, ha="center", va="bottom", fontsize=size, color=FAINT)
    axes.set_ylim(0, 1.25)
    axes.set_xticks(list(places))
    axes.tick_params(labelsize=6.5)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)


def _noun(paths: Sequence[str], told: Told) -> str:
    """The kind of part in two or three words."""
    stack = next((word for word in ("encoder", "decoder") if f"{word}." in f"{paths[0]}"), "")
    heads = max(told["units"][path] for path in paths) < 64
    where = short_name([paths[0]]).split()[-1] if stack and heads else ""
    return "\n".join(word for word in (stack, where, "heads" if heads else "neurons") if word)


def _curve(figure: FigureBase, told: Told) -> None:
    """Loss against measured speed; where no wish is about time, and speed is chance, against multiplications.

    Where single weights may go, against parameters, of which they are a part.
    """
    axes, dense = figure.subplots(), told["dense"]["loss"]
    timed = "seconds" in told["choices"][0]["left"] and not told["unstructured"]
    size = "parameters" if told["unstructured"] else "macs"
    losses = [dense]
    for i, (name, rows) in enumerate(_sides(told)):
        places = [row["faster"]["value"] if timed else row["left"][size] for row in rows]
        points = sorted([(1.0, dense), *zip(places, [row["measured"]["loss"] for row in rows], strict=True)])
        look: dict[str, Any] = {"marker": MARKERS[i], "color": PALETTE[i], "linewidth": 1.4, "markersize": 5}
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, **look)
        losses += [y for _, y in points]
    axes.annotate("dense", (1.0, dense), (4, -9), textcoords="offset points", fontsize=7.5, color=FAINT)
    canvas.loss_axis(axes, losses, "validation loss, no training")
    axes.set_xlabel("times as fast, measured" if timed else f"{SIZES[size].lower()} left, of the base model's")
    axes.legend(fontsize=8)


def _sides(told: Told) -> Iterator[tuple[str, list[Told]]]:
    yield "chosen", list(told["choices"])
    yield "the same part everywhere", [choice["uniform"] for choice in told["choices"]]


def wish_text(wish: Told) -> str:
    """A wish in a few words.

    >>> wish_text({"speedup": 2.0, "keep_bytes": 0.5})
    'speedup 2, keep bytes 0.5'
    """
    return ", ".join(f"{n.replace('_', ' ')} {v:g}" if not isinstance(v, str) else f"loss {v}" for n, v in wish.items())


def write_page_of(told: Told, output: Path) -> None:
    """Write ``choice.html``; nothing in it is loaded from elsewhere."""
    sections = [section for section in _sections(told) if section.parts]
    provenance = told["provenance"]
    write_page(
        output,
        "report.html",
        title=f"What {Path(told['model']).name} keeps",
        verdict=_verdict(told),
        tiles=list(_tiles(told)),
        facts=_facts(told),
        sections=sections,
        links=[(s.name, s.heading) for s in sections] + [("again", "Repeat it")],
        next_text="The models are made by:",
        next_command=told["next"],
        command=provenance.get("command"),
        provenance=provenance_facts(provenance),
        recipe=json.dumps(provenance.get("recipe") or {}, indent=2, ensure_ascii=False, default=str),
    )


def _verdict(told: Told) -> str:
    rows = told["choices"]
    if not told["dense"]:
        return f"{len(rows)} configurations were chosen; none was measured."
    better = sum(row["measured"]["loss"] < row["uniform"]["measured"]["loss"] for row in rows)
    return (
        f"{better} of {len(rows)} choices have a lower loss than the same part of every layer within the same wish, "
        "before any training."
    )


def _tiles(told: Told) -> Iterator[Tile]:
    for row in told["choices"] if told["dense"] else ():
        gap = row["measured"]["loss"] - told["dense"]["loss"]
        same = row["uniform"]["measured"]["loss"] - told["dense"]["loss"]
        value, what = "≈ 1x" if row["faster"]["noisy"] else f"{row['faster']['value']:.2f}x", "as fast"
        if told["unstructured"]:
            value, what = percent(row["left"]["parameters"]), "of the parameters"
        text = f"{what} for {gap:+.3f} of loss (uniform {same:+.3f}): {wish_text(row['wish'])}"
        yield Tile(value, text)


def _facts(told: Told) -> list[tuple[str, str]]:
    time, times = told["time"], told["times"]
    facts = [("Model", told["model"]), ("Timed", f"batch {time['batch_size']}, length {time['length']}")]
    facts.append(("Runtime", f"{time['runtime']}, {time['threads']} threads, {time['device']}"))
    if times:
        around = ", ".join(
            f"{where} {percent(part * times['rest'] / times['dense'])}" for where, part in times["around"].items()
        )
        facts += [("A pass", f"{1e3 * times['dense']:.3g} ms"), ("In no head and no neuron", around)]
        facts.append(("Sums against measured models", f"{percent(times['fit'])} at most"))
    if told.get("sharing"):
        facts.append(("Sharing", told["sharing"]))
    return facts


def _sections(told: Told) -> Iterator[Section]:
    def inline(name: str, figure: Drawing, caption: str, wide: bool = False) -> Figure:
        return Figure(name, caption, [canvas.inline(figure, name, caption, scale=1.2)], wide=wide)

    yield Section("kept", "What each layer keeps", "", [inline("kept-figure", kept_figure(told), KEPT, wide=True)])
    if not told["dense"]:
        return
    parts: list[Table | Figure] = [inline("curve", curve_figure(told), CURVE), _table(told)]
    yield Section("loss", "Loss and speed", "Pruned and repaired in closed form, no training step.", parts)
    if told["times"]:
        lead = "Seconds of parts were measured once, and added up for every choice; choices were timed after."
        yield Section(
            "clock", "By the table and by the clock", lead, [inline("clock-figure", clock_figure(told), CLOCK)]
        )
    tables = [_ways(told, "steps")] + ([_ways(told, "learnt")] if told.get("rerank") else [])
    lead = "The one that was taken is marked. Of nearly equal ones it is the one that shares most with other wishes."
    yield Section("steps", "What each way of choosing brought", lead, [*tables])


def _table(told: Told) -> Table:
    metric, dense = told["metric"], told["dense"]
    columns = [Column("Wish", numeric=False), *(Column(text) for text in SIZES.values())]
    for group in ("chosen", "uniform"):
        columns += [Column("Loss", group=group), Column(metric, group=group), Column("Times as fast", group=group)]
    rows = [["dense", *["100.0%"] * len(SIZES), number(dense["loss"], 3), number(dense[metric], 3), "1.00", "", "", ""]]
    cells = [[Cell(text) for text in row] for row in rows]
    for row in told["choices"]:
        line = [Cell(wish_text(row["wish"])), *(Cell(percent(row["left"][name])) for name in SIZES)]
        both = [row, row["uniform"]]
        least = min(one["measured"]["loss"] for one in both)
        for one in both:
            loss = one["measured"]["loss"]
            fast = "≈" if one["faster"]["noisy"] else number(one["faster"]["value"], 2)
            note = f"by the table {1 / one['left']['seconds']:.2f}" if told["times"] else ""
            line += [
                Cell(number(loss, 3), better=loss == least),
                Cell(number(one["measured"][metric], 3)),
                Cell(fast, note=note),
            ]
        cells.append(line)
    return Table("choices", "Every wish, chosen and with the same part of every layer", columns, cells)


def _ways(told: Told, field: str) -> Table:
    """Losses of every candidate, by wish: without training (``steps``), or after they learnt together (``learnt``)."""
    names = list(dict.fromkeys(name for row in told["choices"] for name in row.get(field, {})))
    columns = [Column("Wish", numeric=False), *(Column(name, "loss") for name in names)]
    rows = []
    for row in told["choices"]:
        known = row.get(field, {})
        losses = {name: loss if field == "steps" else loss["loss"] for name, loss in known.items()}
        cells = [Cell(number(losses.get(name), 4), better=name == row.get("taken"), mark="taken") for name in names]
        rows.append([Cell(wish_text(row["wish"])), *cells])
    if field == "steps":
        return Table("ways", "Validation loss of every candidate, no training step", columns, rows)
    title = f"The best of them after {told['rerank']} steps in which all learnt as one network"
    return Table("learnt", title, columns, rows)
