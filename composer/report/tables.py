"""The tables and figures of a comparison, from its records; what is not known is a dash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..tasks.metrics.table import Metric, metric_of
from .kit.components import DASH, Cell, Column, Table, amount, fraction, number, pair, percent, seconds
from .records import SIDES, Budget, Comparison, Row

LOSS = "nats"


def loss(value: Any) -> str:
    """A loss as a cell's text."""
    return number(value, 3)


def metric_text(metric: Metric) -> Callable[[Any], str]:
    """How a value of this metric is written in a report."""
    return percent if metric.fraction else lambda value: number(value, 1)


def result_table(comparison: Comparison) -> Table:
    """Per configuration: where both sides start, where they end, and what the composed side needs."""
    metric = metric_of(comparison.metric)
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
        Column("steps needed", "of the baseline's"),
    ]
    rows = []
    for row in comparison.rows:
        alone, ours = row.baseline, row.finetuned
        cells = [Cell(str(row.configuration)), Cell(percent(row.sparsity))]
        cells += pair(row.pruned.loss, row.composed.loss, loss, lower=True)
        cells += pair(alone.loss if alone else None, ours.loss if ours else None, loss, lower=True)
        scores = alone.metric if alone else None, ours.metric if ours else None
        cells += pair(*scores, show, lower=not metric.higher_is_better)
        rows.append([*cells, share_cell(row)])
    caption = "Composed against baseline; 0 of the steps: no training of its own was needed. The better side is marked."
    return Table("results", caption, columns, rows)


def share_cell(row: Row) -> Cell:
    """The smallest part of the baseline's steps that reaches its final loss."""
    if amount(row.share) is not None:
        return Cell(f"{fraction(row.share)} ({percent(row.share, 0)})")
    return Cell("not reached" if row.budgets else DASH)


def dense_table(comparison: Comparison) -> Table:
    """The dense model, untouched and fine-tuned for the same steps."""
    metric = metric_of(comparison.metric)
    show = metric_text(metric)
    columns = [
        Column("dense model", numeric=False),
        Column("loss", LOSS),
        Column(metric.label, metric.unit),
        Column("steps"),
        Column("training time"),
    ]
    untouched, run = comparison.dense.untouched, comparison.dense.finetuned
    rows = [
        (
            "untouched",
            loss(untouched.loss if untouched else None),
            show(untouched.metric if untouched else None),
            DASH,
            DASH,
        ),
        (
            "fine-tuned for the same steps",
            *(loss(run.loss if run else None), show(run.metric if run else None)),
            *(number(run.steps if run else None), seconds(run.seconds if run else None)),
        ),
    ]
    caption = "For orientation: the model that nothing was removed from."
    return Table("dense", caption, columns, [[Cell(text) for text in row] for row in rows])


def budget_table(comparison: Comparison) -> Table:
    """Loss of the composed models at each share of the baseline's budget."""
    shares = sorted({budget.share for row in comparison.rows for budget in row.budgets})
    group = "composed, with this part of the baseline's steps"
    columns = [Column("configuration", numeric=False), Column("baseline", f"final loss, {LOSS}")]
    columns += [Column(fraction(share), LOSS, group=group) for share in shares]
    lines = []
    for row in comparison.rows:
        tried = {budget.share: budget for budget in row.budgets}
        cells = [Cell(str(row.configuration)), Cell(loss(row.baseline.loss if row.baseline else None))]
        lines.append([*cells, *(_budget_cell(tried.get(share)) for share in shares)])
    caption = (
        "Shorter runs of the composed models, each with a schedule of its own. "
        "Marked: reaches the baseline's final validation loss."
    )
    return Table("budgets", caption, columns, lines if shares else [])


def _budget_cell(budget: Budget | None) -> Cell:
    if budget is None:
        return Cell(DASH)
    spent = f"{number(budget.steps, 0, ' steps')}, {seconds(budget.seconds)}"
    return Cell(loss(budget.loss), budget.reached, note=spent, mark="reaches the baseline")


def ledger_table(comparison: Comparison) -> Table:
    """All work of both sides, and the sums."""
    ledger = comparison.ledger
    columns = [
        Column("work", numeric=False),
        Column("counted for", numeric=False),
        Column("of", "models, blocks, trials"),
        Column("trained", "optimiser steps"),
        Column("time"),
        Column("equivalent", "dense training steps"),
    ]
    most = max((entry.seconds for entry in ledger.rows), default=0.0)
    rows = []
    for entry in ledger.rows:
        bar = entry.seconds / most if most > 0 else None
        cells = [Cell(entry.work), Cell("both sides" if entry.side == "both" else entry.side)]
        cells += [Cell(number(entry.of)), Cell(number(entry.trained))]
        rows.append([*cells, Cell(seconds(entry.seconds), bar=bar), Cell(number(entry.steps))])
    alone, ours = ledger.baseline, ledger.composed
    times = pair(alone.seconds if alone else None, ours.seconds if ours else None, seconds, lower=True)
    steps = pair(alone.steps if alone else None, ours.steps if ours else None, number, lower=True)
    for side, time, step in zip(SIDES, times, steps, strict=True):
        rows.append([Cell("all work"), Cell(side), Cell(""), Cell(""), time, step])
    caption = "All work of both sides, pruning and the block phase included."
    if ledger.step_seconds is not None:
        caption += f" One dense training step took {seconds(ledger.step_seconds)} in this run."
    if ledger.masks and ledger.masks.criterion:
        same = "the same" if ledger.masks.same else "not the same"
        caption += f" Masks: {ledger.masks.criterion}, {same} on both sides."
    return Table("ledger", caption, columns, rows, total=2)


def search_table(comparison: Comparison) -> Table:
    """The learning rates that were tried, the same for both sides."""
    search = comparison.search
    tried = {side: {trial.learning_rate: trial.loss for trial in search.of(side)} for side in SIDES}
    together = {trial.learning_rate: trial.loss for trial in search.joint}
    rows = []
    for rate in sorted({*together, *(rate for side in SIDES for rate in tried[side])}):
        cells = [Cell(f"{rate:g}")]
        for side in SIDES:
            chosen = search.chosen.get(side) == rate
            cells.append(Cell(loss(tried[side].get(rate)), chosen, mark="chosen"))
        if together:
            best = together.get(rate) == min(together.values())
            cells.append(Cell(loss(together.get(rate)), best, mark="chosen"))
        rows.append(cells)
    columns = [Column("learning rate"), *(Column(side, f"validation loss, {LOSS}") for side in SIDES)]
    columns += [Column("joint tuning", f"mean validation loss, {LOSS}, after its tries")] if together else []
    caption = "Learning rates tried, once per side, on one middle configuration. Marked: chosen."
    return Table("search", caption, columns, rows)


def sharing_table(comparison: Comparison) -> Table:
    """Blocks and uses per level, and what sharing saves."""
    columns = [
        Column("level", numeric=False),
        Column("blocks", "tuned once each"),
        Column("uses", "over all configurations"),
        Column("saved", "of the unshared work"),
    ]
    rows = [
        [
            Cell(level.level),
            Cell(number(level.blocks)),
            Cell(number(level.uses)),
            Cell(percent(level.saved), bar=min(max(level.saved, 0.0), 1.0)),
        ]
        for level in comparison.sharing
    ]
    return Table("sharing", "What the configurations share, per level.", columns, rows)


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values, None unless all of them are known."""
    known = [amount(value) for value in values]
    numbers = [value for value in known if value is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(known) else None
