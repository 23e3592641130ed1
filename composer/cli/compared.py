"""The comparison as tables: what the models reach, what it cost, and from when on composing pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from composer.models.no_targets import said
from composer.report.records import SIDES, Comparison, Ledger, Measured, Row, Run, Search, Trial
from composer.steps.outcome import Outcome
from composer.steps.shrink import SUFFIX
from composer.tasks.metrics.table import metric_of

from .format import NONE, duration, fraction, number, percent
from .tables import Sheet, Shown, each, finished, shrunk_models

NEEDED = (
    "steps needed: the smallest part of the baseline's steps with which the composed model reaches the baseline's "
    "final validation loss (0: it is there when it is composed; >1: not even with all of them)"
)


def comparison(outcome: Outcome) -> Shown:
    """Everything that `compare` and `run` have to say."""
    table = Comparison.read(outcome.summary)
    yield _configurations(table)
    if outside := said(table.no_targets):
        yield outside
    yield _dense(table)
    if any(row.budgets for row in table.rows):
        yield _budgets(table.rows)
    yield from _search(table.search)
    if table.ledger.rows:
        yield _ledger(table.ledger)
    if table.verdict:
        yield table.verdict
    yield finished(outcome, "tables, curves and the graph; in one picture: summary.png")


def whole_run(outcome: Outcome) -> Shown:
    """Everything that `run` has to say; of a family of small models only what they are, as nothing was compared."""
    table, small = Comparison.read(outcome.summary), outcome.summary.get("shrunk", [])
    if not small or any(row.baseline for row in table.rows):
        yield from each((comparison(outcome), shrunk_models(outcome)))
        return
    yield from shrunk_models(outcome)
    yield f"{outcome.output}: the small models, what they share and the graph; what each layer keeps: choice.html"
    yield _family(small, table.metric, outcome.summary["picture"])


def _family(rows: Sequence[Mapping[str, Any]], metric: str | None, picture: str) -> str:
    """One line for those who read nothing else."""
    from composer.report.family import text_of

    models = [Path(row["model"]) for row in rows[1:]]
    shrunk = all(model.name.endswith(SUFFIX) for model in models)
    where = f"{models[0].parent}/*{SUFFIX}" if shrunk else ", ".join(map(str, models))
    return f"{text_of(rows, metric)}; picture: {picture}, models: {where}"


def _configurations(table: Comparison) -> Sheet:
    metric = table.metric or "metric"
    figures = [
        "sparsity",
        *("before\npruned", "before\ncomposed"),
        *("after\nbaseline", metric),
        *("after\ncomposed", metric),
        "steps\nneeded",
    ]
    title = f"Validation loss before and after fine-tuning; {metric} on the test split"
    shown = Sheet(title, ["n"], figures, NEEDED)
    for row in table.rows:
        shown.add_row(
            str(row.configuration),
            percent(row.sparsity),
            number(row.pruned.loss),
            number(row.composed.loss),
            *_measured(row.baseline, metric),
            *_measured(row.finetuned, metric),
            _share(row),
        )
    return shown


def _dense(table: Comparison) -> Sheet:
    metric = table.metric or "metric"
    shown = Sheet("The dense base model", [""], ["loss", metric, "steps", "time"])
    run = table.dense.finetuned
    shown.add_row("untouched", *_measured(table.dense.untouched, metric), NONE, duration(None))
    steps = f"{run.steps:,}" if run else NONE
    shown.add_row("fine-tuned", *_measured(run, metric), steps, duration(run.seconds if run else None))
    return shown


def _budgets(rows: Sequence[Row]) -> Sheet:
    shares = sorted({budget.share for row in rows for budget in row.budgets})
    title = "Loss of composed models with a part of the baseline's steps"
    figures = ["baseline", *(fraction(share) for share in shares)]
    shown = Sheet(title, ["n"], figures, "* reaches the baseline's final validation loss")
    for row in rows:
        tried = {budget.share: f"{number(budget.loss)} {'*' if budget.reached else ' '}" for budget in row.budgets}
        losses = [tried.get(share, NONE) for share in shares]
        shown.add_row(str(row.configuration), number(row.baseline.loss if row.baseline else None), *losses)
    return shown


def _search(search: Search) -> Shown:
    """One line per side: the learning rates that were tried."""
    for side in SIDES:
        if search.of(side):
            yield f"learning rates tried for {side}: {_tries(search.of(side))}; chosen: {search.chosen[side]:g}"
    if search.joint:
        best = min(search.joint, key=lambda trial: trial.loss).learning_rate
        yield f"learning rates tried for joint tuning: {_tries(search.joint)}; chosen: {best:g}"


def _tries(tried: Sequence[Trial]) -> str:
    return ", ".join(f"{trial.learning_rate:g} (loss {number(trial.loss)})" for trial in tried)


def _ledger(ledger: Ledger) -> Sheet:
    caption = "trained: optimiser steps, of all models together; dense: time in steps of the dense model "
    caption += f"({duration(ledger.step_seconds)} each)"
    masks = ledger.masks
    if masks and masks.criterion:
        caption += f"; masks: {masks.criterion}, {'the same' if masks.same else 'not the same'} on both sides"
    shown = Sheet("All work", ["work", "side"], ["of", "trained", "time", "dense"], caption)
    for entry in ledger.rows:
        counts = (NONE if count is None else f"{count:,}" for count in (entry.of, entry.trained))
        shown.add_row(entry.work, entry.side, *counts, duration(entry.seconds), f"{entry.steps:,.0f}")
    shown.add_section()
    for side in SIDES:
        spent = ledger.of(side)
        steps = NONE if spent is None else f"{spent.steps:,.0f}"
        shown.add_row("in all", side, "", "", duration(spent.seconds if spent else None), steps)
    return shown


def _measured(model: Run | Measured | None, metric: str) -> tuple[str, str]:
    """A model's loss, and its metric with the decimals that suit it."""
    decimals = metric_of(metric).decimals
    return number(model.loss if model else None), number(model.metric if model else None, decimals)


def _share(row: Row) -> str:
    if row.share is not None:
        return fraction(row.share)
    return ">1" if row.budgets else NONE
