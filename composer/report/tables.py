"""The tables and figures of a comparison, from plain JSON data in which anything may be missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..tasks.metrics.table import Metric, metric_of
from .kit.components import DASH, Cell, Column, Table, amount, dig, fraction, number, pair, percent, seconds

LOSS = "nats"

Data = dict[str, Any]


def loss(value: Any) -> str:
    """A loss as a cell's text."""
    return number(value, 3)


def metric_text(metric: Metric) -> Callable[[Any], str]:
    """How a value of this metric is written in a report."""
    return percent if metric.share else lambda value: number(value, 1)


def result_table(comparison: Data) -> Table:
    """Per configuration: where both sides start, where they end, and what the composed side needs."""
    metric = metric_of(comparison.get("metric"))
    show = metric_text(metric)
    start, end, scored = "loss before any model-level step", "final loss", f"final {metric.label}"
    columns = [
        Column("configuration", numeric=False),
        Column("sparsity", "of target weights"),
        Column("baseline", LOSS, group=start),
        Column("composed", LOSS, group=start),
        Column("baseline", LOSS, group=end),
        Column("composed", LOSS, group=end),
        Column("baseline", metric.unit, group=scored),
        Column("composed", metric.unit, group=scored),
        Column("smallest share", "of the baseline's budget"),
    ]
    rows = []
    for row in comparison.get("rows") or []:
        cells = [Cell(str(_or(row.get("configuration"), DASH))), Cell(percent(row.get("sparsity")))]
        cells += pair(dig(row, "pruned", "loss"), dig(row, "composed", "loss"), loss, lower=True)
        cells += pair(dig(row, "baseline", "loss"), dig(row, "finetuned", "loss"), loss, lower=True)
        scores = dig(row, "baseline", "metric"), dig(row, "finetuned", "metric")
        cells += pair(*scores, show, lower=not metric.higher_is_better)
        rows.append([*cells, share_cell(row)])
    caption = "Composed against baseline, at the same number of model-level steps. The better side is marked."
    return Table("results", caption, columns, rows)


def share_cell(row: Data) -> Cell:
    """The smallest share of the budget that reaches the baseline's final loss."""
    if amount(row.get("share")) is not None:
        return Cell(f"{fraction(row['share'])} ({percent(row['share'], 0)})")
    return Cell("not reached" if row.get("budgets") else DASH)


def dense_table(comparison: Data) -> Table:
    """The dense model, untouched and fine-tuned for the same steps."""
    metric = metric_of(comparison.get("metric"))
    show = metric_text(metric)
    columns = [
        Column("dense model", numeric=False),
        Column("loss", LOSS),
        Column(metric.label, metric.unit),
        Column("steps"),
        Column("training time"),
    ]
    rows = []
    for key, text in (("untouched", "untouched"), ("finetuned", "fine-tuned for the same steps")):
        of = dig(comparison, "dense", key)
        cells = [text, loss(dig(of, "loss")), show(dig(of, "metric")), number(dig(of, "steps"))]
        rows.append([Cell(c) for c in (*cells, seconds(dig(of, "seconds")))])
    return Table("dense", "For orientation: the model that nothing was removed from.", columns, rows)


def budget_table(comparison: Data) -> Table:
    """Loss of the composed models at each share of the baseline's budget."""
    rows = comparison.get("rows") or []
    known = [b for row in rows for b in row.get("budgets") or []]
    shares = sorted({b["share"] for b in known if amount(dig(b, "share")) is not None})
    group = "composed, with this share of the baseline's steps"
    columns = [Column("configuration", numeric=False), Column("baseline", f"final loss, {LOSS}")]
    columns += [Column(fraction(share), LOSS, group=group) for share in shares]
    lines = []
    for row in rows:
        cells = [Cell(str(_or(row.get("configuration"), DASH))), Cell(loss(dig(row, "baseline", "loss")))]
        for share in shares:
            found = next((b for b in row.get("budgets") or [] if dig(b, "share") == share), None)
            reached = bool(dig(found, "reached"))
            spent = [number(dig(found, "steps"), 0, " steps")] if amount(dig(found, "steps")) is not None else []
            spent += [seconds(dig(found, "seconds"))] if amount(dig(found, "seconds")) is not None else []
            text = loss(dig(found, "loss"))
            cells.append(Cell(text, reached, note=", ".join(spent), mark="reaches the baseline"))
        lines.append(cells)
    caption = (
        "Shorter runs of the composed models, each with a schedule of its own. "
        "Marked: reaches the baseline's final validation loss."
    )
    return Table("budgets", caption, columns, lines if shares else [])


def ledger_table(comparison: Data) -> Table:
    """All work of both sides, and the sums."""
    ledger = comparison.get("ledger") or {}
    columns = [
        Column("work", numeric=False),
        Column("counted for", numeric=False),
        Column("of", "models, blocks, trials"),
        Column("trained", "optimiser steps"),
        Column("time"),
        Column("equivalent", "dense training steps"),
    ]
    work = ledger.get("rows") or []
    most = max((amount(row.get("seconds")) or 0.0 for row in work), default=0.0)
    rows = []
    for row in work:
        spent = amount(row.get("seconds"))
        bar = None if spent is None or most <= 0 else spent / most
        side = str(_or(row.get("side"), DASH))
        cells = [Cell(str(_or(row.get("work"), DASH))), Cell("both sides" if side == "both" else side)]
        cells += [Cell(number(row.get("of"))), Cell(number(row.get("trained")))]
        rows.append([*cells, Cell(seconds(spent), bar=bar), Cell(number(row.get("steps")))])
    times = pair(dig(ledger, "baseline", "seconds"), dig(ledger, "composed", "seconds"), seconds, lower=True)
    steps = pair(dig(ledger, "baseline", "steps"), dig(ledger, "composed", "steps"), number, lower=True)
    for side, time, step in zip(("baseline", "composed"), times, steps, strict=True):
        rows.append([Cell("all work"), Cell(side), Cell(""), Cell(""), time, step])
    unit = amount(ledger.get("step_seconds"))
    caption = "All work of both sides, pruning and the block phase included."
    if unit is not None:
        caption += f" One dense training step took {seconds(unit)} in this run."
    criterion, same = (dig(ledger, "masks", key) for key in ("criterion", "same"))
    if criterion:
        caption += f" Masks: {criterion}, {'the same' if same else 'not the same'} on both sides."
    return Table("ledger", caption, columns, rows, total=2)


def search_table(comparison: Data) -> Table:
    """The learning rates that were tried, the same for both sides."""
    search = comparison.get("search") or {}
    sides = ("baseline", "composed")
    tried = {side: {dig(t, "learning_rate"): dig(t, "loss") for t in search.get(side) or []} for side in sides}
    rates = sorted({rate for side in sides for rate in tried[side] if amount(rate) is not None})
    rows = []
    for rate in rates:
        cells = [Cell(f"{rate:g}")]
        for side in sides:
            chosen = dig(search, "chosen", side) == rate
            cells.append(Cell(loss(tried[side].get(rate)), chosen, mark="chosen"))
        rows.append(cells)
    columns = [Column("learning rate"), *(Column(side, f"validation loss, {LOSS}") for side in sides)]
    caption = "Learning rates tried, once per side, on one middle configuration. Marked: chosen."
    return Table("search", caption, columns, rows)


def sharing_table(comparison: Data) -> Table:
    """Blocks and uses per level, and what sharing saves."""
    columns = [
        Column("level", numeric=False),
        Column("blocks", "tuned once each"),
        Column("uses", "over all configurations"),
        Column("saved", "of the unshared work"),
    ]
    rows = [
        [
            Cell(str(_or(row.get("level"), DASH))),
            Cell(number(row.get("blocks"))),
            Cell(number(row.get("uses"))),
            Cell(percent(row.get("saved")), bar=min(max(amount(row.get("saved")) or 0.0, 0.0), 1.0)),
        ]
        for row in comparison.get("sharing") or []
    ]
    return Table("sharing", "What the configurations share, per level.", columns, rows)


def mean(values: Sequence[Any]) -> float | None:
    """Mean of the values, None unless all of them are known."""
    known = [amount(value) for value in values]
    numbers = [value for value in known if value is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(known) else None


def _or(value: Any, other: Any) -> Any:
    return other if value is None else value
