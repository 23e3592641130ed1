"""The comparison as tables: what the models reach, what it cost, and from when on composing pays."""

from __future__ import annotations

from typing import Any

from composer.steps.outcome import Outcome
from composer.tasks.metrics.table import metric_of

from .format import NONE, duration, fraction, number, percent
from .tables import Sheet, Shown, finished

SHARE = (
    "share: smallest part of the baseline's steps with which the composed model reaches the baseline's final "
    "validation loss (>1: not even with all of them)"
)


def comparison(outcome: Outcome) -> Shown:
    """Everything that `compare` and `run` have to say."""
    told = outcome.summary
    yield _configurations(told)
    yield _dense(told)
    if any(row["budgets"] for row in told["rows"]):
        yield _budgets(told["rows"])
    yield from _search(told.get("search") or {})
    ledger = told.get("ledger") or {}
    if ledger.get("rows"):
        yield _ledger(ledger)
    if told.get("verdict"):
        yield told["verdict"]
    yield finished(outcome, "tables, curves and the graph")


def _configurations(told: dict[str, Any]) -> Sheet:
    metric = told["metric"]
    figures = [
        "sparsity",
        *("before\npruned", "before\ncomposed"),
        *("after\nbaseline", metric),
        *("after\ncomposed", metric),
        "share",
    ]
    title = f"Validation loss before and after fine-tuning; {metric} on the test split"
    shown = Sheet(title, ["n"], figures, SHARE)
    for row in told["rows"]:
        shown.add_row(
            str(row["configuration"]),
            percent(row["sparsity"]),
            _figure(row["pruned"], "loss"),
            _figure(row["composed"], "loss"),
            _figure(row["baseline"], "loss"),
            _metric(row["baseline"], metric),
            _figure(row["finetuned"], "loss"),
            _metric(row["finetuned"], metric),
            _share(row),
        )
    return shown


def _dense(told: dict[str, Any]) -> Sheet:
    shown = Sheet("The dense base model", [""], ["loss", told["metric"], "steps", "time"])
    for name in ("untouched", "finetuned"):
        part = told["dense"].get(name) or {}
        steps, seconds = part.get("steps"), part.get("seconds")
        shown.add_row(
            {"untouched": "untouched", "finetuned": "fine-tuned"}[name],
            _figure(part, "loss"),
            _metric(part, told["metric"]),
            f"{steps:,}" if steps is not None else NONE,
            duration(seconds),
        )
    return shown


def _budgets(rows: list[dict[str, Any]]) -> Sheet:
    shares = sorted({budget["share"] for row in rows for budget in row["budgets"]})
    title = "Loss of composed models with a part of the baseline's steps"
    figures = ["baseline", *(fraction(share) for share in shares)]
    shown = Sheet(title, ["n"], figures, "* reaches the baseline's final validation loss")
    for row in rows:
        held = {budget["share"]: budget for budget in row["budgets"]}
        losses = [
            f"{number(held[s]['loss'])} {'*' if held[s]['reached'] else ' '}" if s in held else NONE for s in shares
        ]
        shown.add_row(str(row["configuration"]), _figure(row["baseline"], "loss"), *losses)
    return shown


def _search(search: dict[str, Any]) -> Shown:
    """One line per side: the learning rates that were tried."""
    for side in ("baseline", "composed"):
        tried = search.get(side) or []
        chosen = (search.get("chosen") or {}).get(side)
        losses = ", ".join(f"{t['learning_rate']:g} (loss {number(t['loss'])})" for t in tried)
        if losses:
            yield f"learning rates tried for {side}: {losses}; chosen: {chosen:g}"


def _ledger(ledger: dict[str, Any]) -> Sheet:
    caption = "trained: optimiser steps, of all models together; dense: time in steps of the dense model "
    caption += f"({duration(ledger['step_seconds'])} each)"
    masks = ledger.get("masks") or {}
    if masks.get("criterion"):
        caption += f"; masks: {masks['criterion']}, {'the same' if masks['same'] else 'not the same'} on both sides"
    shown = Sheet("All work", ["work", "side"], ["of", "trained", "time", "dense"], caption)
    for row in ledger["rows"]:
        counts = (NONE if row.get(name) is None else f"{row[name]:,}" for name in ("of", "trained"))
        shown.add_row(row["work"], row["side"], *counts, duration(row["seconds"]), f"{row['steps']:,.0f}")
    shown.add_section()
    for side in ("baseline", "composed"):
        total = ledger.get(side) or {}
        steps = total.get("steps")
        shown.add_row(
            "in all", side, "", "", duration(total.get("seconds")), NONE if steps is None else f"{steps:,.0f}"
        )
    return shown


def _figure(part: dict[str, Any] | None, name: str) -> str:
    return number((part or {}).get(name))


def _metric(part: dict[str, Any] | None, name: str) -> str:
    return number((part or {}).get("metric"), metric_of(name).decimals)


def _share(row: dict[str, Any]) -> str:
    if row["share"] is not None:
        return fraction(row["share"])
    return ">1" if row["budgets"] else NONE
