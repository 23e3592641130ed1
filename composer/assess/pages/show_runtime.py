"""The section about runtime: times as fast against the rate, masked and shrunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...report.kit.components import Cell, Column, Figure, Section, Table, number, percent
from ...timing.by_rate import FORMS
from ...timing.rate_picture import rate_figure
from ..contents import RuntimeFile
from .parts import Drawing, Part, figure, table


def part(content: RuntimeFile) -> Part:
    """The section of a ``runtime.json``."""
    rows = content["rows"]
    pattern = content.get("two_of_four") or {"rows": [], "note": ""}  # not in files of earlier versions
    note = " ".join(said for said in (content.get("note"), pattern["note"]) if said)
    matrices = [_matrices(pattern["rows"])] if pattern["rows"] else []
    if not rows:
        return Part(Section("runtime", "Runtime", note, matrices))
    first = rows[0]
    caption = (
        f"Heads and neurons removed everywhere, {first['batch_size']} texts of {first['length']} tokens, "
        f"{content['threads']} thread, models timed in turn. Bars: 95 % intervals. Dotted: what the number of "
        "multiplications alone would give."
    )
    picture = rate_figure(rows)
    drawing = Drawing("runtime", picture, "Times as fast as the dense model against the rate", _say(content))
    parts: list[Table | Figure] = [figure("runtime-figure", caption, [drawing]), _table(content), *matrices]
    return Part(Section("runtime", "Runtime", note, parts), {drawing.name: picture})


def _say(content: RuntimeFile) -> str:
    """Where each line ends."""
    told = []
    for form in FORMS:
        last = max((row for row in content["rows"] if row["form"] == form), key=lambda row: row["rate"])
        told.append(f"{form}: {number(last['faster']['value'], 2)} times as fast at {percent(last['rate'], 0)}")
    return ". ".join(told) + "."


def _matrices(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Matrices with a 2:4 pattern against the same ones dense."""
    columns = [Column("matrix", numeric=False), *map(Column, ("shape", "of these", "dense", "2:4"))]
    columns += [Column("times as fast", "95 % interval")]
    shown: list[list[str | Cell]] = []
    for row in rows:
        ratio = row["faster"]
        said = f"{number(ratio['value'], 2)} ({number(ratio['low'], 2)} to {number(ratio['high'], 2)})"
        times = [f"{1e3 * row[key]['median']:.3g} ms" for key in ("dense", "own")]
        said += ", too noisy to say" if ratio["noisy"] else ""
        shown.append([row["path"], " × ".join(map(str, row["shape"])), str(row["count"]), *times, said])
    return table("runtime-two-of-four", "Matrices with a 2:4 pattern, in float16", columns, shown)


def _table(content: RuntimeFile) -> Table:
    columns = [
        Column("form", numeric=False),
        Column("part", numeric=False),
        Column("rate"),
        Column("removed", "of target weights"),
        Column("dense", "ms"),
        Column("time", "ms"),
        Column("times as fast", "95 % interval"),
        Column("multiplications", "times fewer"),
        Column("size", "MB"),
    ]
    rows: list[list[str | Cell]] = []
    for row in content["rows"]:
        ratio = row["faster"]
        said = f"{number(ratio['value'], 2)} ({number(ratio['low'], 2)} to {number(ratio['high'], 2)})"
        times = [number(row["milliseconds_dense"], 1), number(row["milliseconds"], 1)]
        said += ", too noisy to say" if ratio["noisy"] else ""
        names = [row["form"], row["part"], percent(row["rate"], 0), percent(row["removed_share"])]
        rows.append([*names, *times, said, number(row["macs"], 2), number(row["bytes"] / 1e6, 1)])
    return table("runtime-points", f"All {len(rows)} points as a table", columns, rows, folded=True)
