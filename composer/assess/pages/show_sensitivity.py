"""The section about sensitivities: every target by itself at every rate, then every head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...report.kit.components import Column, Figure, Section, Table, amount, number, percent
from ...report.kit.labels import short_name
from ..contents import HeadLoss, SensitivityFile, TargetLoss
from . import grids
from .grids import Grid
from .parts import Drawing, Part, figure, rise, table, unit_of

SIDES = {"loss": "pruned", "loss_repaired": "repaired"}


def part(content: SensitivityFile) -> Part:
    """The section of a ``sensitivity.json``."""
    rows, heads, dense = content["rows"], content.get("heads") or [], content["dense"]["loss"]
    sides = [side for side in SIDES if any(amount(row.get(side)) is not None for row in rows)]
    name = f"rise of the loss ({unit_of(content)})"
    scale = grids.rises(known(rows, dense), name)
    cards = {rate: _at(rows, rate, dense, sides) for rate in content["rates"]}
    drawings = [
        Drawing(f"sensitivity-{i}", grids.grid_figure(cards[rate], scale), _say(rate), _worst(rows, rate, dense))
        for i, rate in enumerate(cards)
    ]
    parts: list[Table | Figure] = [
        figure("sensitivity-heat", _caption(sides), drawings),
        sensitivity_table(content, sides),
    ]
    files = {"sensitivity": grids.grid_figure([g for card in cards.values() for g in card], scale, across=len(sides))}
    if heads:
        scale = grids.rises(known(heads, dense), name)
        picture = grids.grid_figure([head_grid(heads, dense)], scale)
        drawn = Drawing("heads", picture, "Rise of the loss when one head is removed", _say_heads(heads, dense))
        caption = (
            "One head (or group of heads that share keys and values) removed at a time, without repair; all else dense."
        )
        parts += [figure("heads-figure", caption, [drawn]), head_table(heads, dense, unit_of(content))]
        files["heads"] = picture
    lead = f"{content.get('method') or ''} Dense loss: {number(dense, 3)} {unit_of(content)}".strip()
    examples = content.get("examples")
    lead += f", on {number(examples)} examples." if examples else "."
    return Part(Section("sensitivity", "Sensitivity", lead, parts), files)


def known(rows: Sequence[TargetLoss] | Sequence[HeadLoss], dense: float) -> list[float]:
    """All rises that are known."""
    values = [amount(row.get(side)) for row in rows for side in SIDES]
    return [value - dense for value in values if value is not None]


def extremes(content: SensitivityFile) -> tuple[TargetLoss, TargetLoss, float] | None:
    """The rows that cost least and most among those of one middle rate, with that rate."""
    dense, rates = content["dense"]["loss"], content["rates"]
    if not rates:
        return None
    rate = min(rates, key=lambda r: abs(r - 0.5))
    rows = [row for row in content["rows"] if row["rate"] == rate and row["removed"] and _best(row) is not None]
    if len(rows) < 2 or dense is None:
        return None
    ordered = sorted(rows, key=lambda row: _best(row) or 0.0)
    return ordered[0], ordered[-1], rate


def _best(row: TargetLoss) -> float | None:
    repaired = amount(row.get("loss_repaired"))
    return repaired if repaired is not None else amount(row.get("loss"))


def _at(rows: Sequence[TargetLoss], rate: float, dense: float, sides: Sequence[str]) -> list[Grid]:
    """One rate: the grid without repair, then that with it."""
    cards = []
    for side in sides:
        values = {row["target"]: _difference(row, side, dense) for row in rows if row["rate"] == rate}
        cards.append(grids.by_layer(f"rate {percent(rate, 0)}, {SIDES[side]}", values))
    return cards


def _difference(row: Mapping[str, object], side: str, dense: float) -> float | None:
    value = amount(row.get(side))
    return None if value is None else value - dense


def head_grid(heads: Sequence[HeadLoss], dense: float) -> Grid:
    """Targets by heads."""
    targets = list(dict.fromkeys(row["target"] for row in heads))
    count = 1 + max(row["head"] for row in heads)
    losses = {(row["target"], row["head"]): row["loss"] for row in heads}
    values = [[_difference({"loss": losses.get((path, i))}, "loss", dense) for i in range(count)] for path in targets]
    names = [short_name([path]) for path in targets]
    return Grid("", names, [str(i) for i in range(count)], values, [("head", count)])


def sensitivity_table(content: SensitivityFile, sides: Sequence[str]) -> Table:
    """Targets × rates, in numbers."""
    rates, dense, unit = content["rates"], content["dense"]["loss"], unit_of(content)
    known = {(row["target"], row["rate"]): row for row in content["rows"]}
    columns = [Column("target", numeric=False), Column("weights")]
    columns += [Column(SIDES[side], f"rise, {unit}", group=f"rate {percent(r, 0)}") for r in rates for side in sides]
    rows = []
    for target in dict.fromkeys(row["target"] for row in content["rows"]):
        mine = [known.get((target, rate)) for rate in rates]
        total = next((row["total"] for row in mine if row), None)
        cells = [rise(row.get(side) if row else None, dense) for row in mine for side in sides]
        rows.append([target, number(total), *cells])
    caption = f"All {len(rows)} targets as a table: rise of the loss"
    return table("sensitivity-targets", caption, columns, rows, folded=True)


def head_table(heads: Sequence[HeadLoss], dense: float, unit: str) -> Table:
    """Heads, in numbers."""
    columns = [Column("target", numeric=False), Column("head"), Column("loss", f"rise, {unit}")]
    rows = [[row["target"], str(row["head"]), rise(row.get("loss"), dense, 4)] for row in heads]
    caption = f"All {len(rows)} heads as a table: rise of the loss"
    return table("head-rows", caption, columns, rows, folded=True)


def _caption(sides: Sequence[str]) -> str:
    text = (
        "How much the loss rises when only this target is pruned: layers from left to right, what stands in them from "
    )
    text += "top to bottom. Blank: no such target."
    return text + (" Above: pruned only; below: with what is left refitted." if len(sides) > 1 else "")


def _say(rate: float) -> str:
    return f"Rise of the loss when one target is pruned at {percent(rate, 0)}, by layer and role"


def _worst(rows: Sequence[TargetLoss], rate: float, dense: float) -> str:
    """The most sensitive targets of one rate, in words."""
    some = [row for row in rows if row["rate"] == rate and amount(row.get("loss")) is not None]
    worst = sorted(some, key=lambda row: -row["loss"])[:3]
    named = ", ".join(f"{short_name([row['target']])} {rise(row['loss'], dense)}" for row in worst)
    return f"Most sensitive, pruned only: {named}. All numbers are in the table below." if named else ""


def _say_heads(heads: Sequence[HeadLoss], dense: float) -> str:
    worst = sorted((row for row in heads if amount(row.get("loss")) is not None), key=lambda row: -row["loss"])[:3]
    named = ", ".join(f"{short_name([row['target']])} head {row['head']} {rise(row['loss'], dense)}" for row in worst)
    return f"Most needed: {named}. All numbers are in the table below." if named else ""
