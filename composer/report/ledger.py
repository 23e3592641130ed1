"""The ledger: all work of both sides, in seconds and in steps of dense training, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from .growth import block_seconds, charged, lines, totals

JOINT = "joint tuning, all configurations together"
"""The row of what all configurations learn as one network."""


def ledger_of(work: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    """Add up what each side did.

    The composed side pays for pruning, the block phase with its joint steps, its learning-rate search, composing, and
    for each configuration the smallest budget that reached the baseline's loss (the whole budget where none did).
    The baseline pays for pruning, its search and its fine-tuning. Validation passes of whole models, and
    the smaller budgets that were tried on the way, are measurements and count for neither.

    Args:
        work: ``prune`` (seconds), ``blocks`` (per configuration: node hash -> seconds, the joint phase's among them),
            ``rows``, ``search``; where they are known, ``joint`` (``seconds``, ``steps``, ``configurations``,
            ``curve``), ``counts`` (how many ``variants`` and ``blocks``), ``block_steps`` and ``masks``.
        dense: the dense row; its run says what one step costs.

    Returns:
        ``rows``: ``work``, ``side``, ``seconds``, ``steps`` (the same in dense training steps, by the measured
        seconds of one in the same run), ``trained`` (optimiser steps that were made; None where none are) and ``of``
        (how many models, blocks, trials). Then totals per side; ``growth`` (totals for the first 1, 2, …
        configurations), ``lines`` (losses on the way there); ``pays_from``, ``here`` and ``masks``.
    """
    rows, search = work["rows"], work["search"]
    told = {"here": len(rows), "masks": work.get("masks")}
    control = dense.get("finetuned")
    if not control or any(not row["baseline"] or not row["finetuned"] for row in rows):
        empty = dict.fromkeys(("step_seconds", "baseline", "composed", "pays_from"))
        return {**empty, "rows": [], "growth": [], "lines": [], **told}
    step = control["seconds"] / control["steps"]
    trials = {side: _trials(side, search, rows) for side in ("baseline", "composed")}
    searched = {side: sum(float(trial["seconds"]) for trial in some) for side, some in trials.items()}
    entries = [
        {**entry, "steps": entry["seconds"] / step} for entry in _entries(work, trials, searched) if entry["seconds"]
    ]
    growth = totals(work, searched, step)
    return {
        "step_seconds": step,
        "rows": entries,
        "baseline": growth[-1]["baseline"],
        "composed": growth[-1]["composed"],
        "growth": growth,
        "lines": lines(work, searched, step) if all(row["baseline"].get("curve") for row in rows) else [],
        "pays_from": pays_from([k["composed"]["seconds"] - k["baseline"]["seconds"] for k in growth]),
        **told,
    }


def _entries(
    work: dict[str, Any], trials: dict[str, list[dict[str, Any]]], searched: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """The ledger's lines: what, whose, how many, seconds, and optimiser steps where some were made."""
    rows, counts, joint = work["rows"], work.get("counts") or {}, work.get("joint") or {}
    runs = [charged(row) for row in rows]

    def entry(what: str, side: str, seconds: float, of: int | None, trained: int | None = None) -> dict[str, Any]:
        return {"work": what, "side": side, "seconds": seconds, "trained": trained, "of": of}

    yield entry("prune every variant", "both", work["prune"], counts.get("variants"))
    blocks = block_seconds(work)[-1] - joint.get("seconds", 0.0)
    what = "block-level fine-tuning, once for all"
    yield entry(what, "composed", blocks, counts.get("blocks"), work.get("block_steps"))
    if joint:
        yield entry(JOINT, "composed", joint["seconds"], joint["configurations"], joint["steps"])
    composing = sum(row["finetuned"]["compose_seconds"] for row in rows)
    yield entry("compose the models", "composed", composing, len(rows))
    for side, some in trials.items():
        yield entry("learning-rate search", side, searched[side], len(some), _steps(some))
    alone = [row["baseline"] for row in rows]
    seconds = sum(run["seconds"] for run in alone)
    yield entry("fine-tune every configuration whole", "baseline", seconds, len(rows), _steps(alone))
    what = "fine-tune composed models until they reach the baseline's loss"
    yield entry(what, "composed", sum(run["seconds"] for run in runs), len(rows), _steps(runs))


def _steps(runs: list[dict[str, Any]]) -> int:
    return sum(run.get("steps") or 0 for run in runs)


def pays_from(gaps: list[float]) -> int | None:
    """The number of configurations from which composing costs no more than the baselines.

    Args:
        gaps: composed minus baseline seconds of the first 1, 2, … configurations. Beyond them the mean
            slope is continued; None when it never pays. A gap that opens again later does not count as paid.

    >>> pays_from([3.0, 1.0, -1.0])
    3
    >>> pays_from([3.0, 2.0])
    4
    >>> pays_from([1.0, 2.0]) is None
    True
    """
    behind = max((k for k, gap in enumerate(gaps, 1) if gap > 0), default=0)
    if behind < len(gaps):
        return behind + 1
    gained = gaps[0] - gaps[-1]
    return len(gaps) + math.ceil(gaps[-1] * (len(gaps) - 1) / gained) if gained > 0 else None


def verdict_of(rows: list[dict[str, Any]], ledger: dict[str, Any]) -> str:
    """One or two sentences that say what the table shows, also when it is a loss."""
    if not ledger["rows"]:
        return "Not everything is trained yet: this table holds what there is."
    n = len(rows)
    lower = sum(row["composed"]["loss"] < row["pruned"]["loss"] for row in rows)
    reached = sum(row["share"] is not None for row in rows)
    better = sum(row["finetuned"]["loss"] <= row["baseline"]["loss"] for row in rows)
    ours, theirs = ledger["composed"]["seconds"], ledger["baseline"]["seconds"]
    start = f"Composed models start below the baseline in {lower} of {n} configurations"
    end = f"and end at or below it in {better} of {n} at the same number of steps."
    reach = f"They reach the baseline's final loss in {reached} of {n}"
    if reached < n:
        cost = "so the work of the two sides cannot be compared for all of them."
    elif ours <= theirs:
        cost = f"with {theirs / ours:.1f}x less work in all ({ours:.0f} s against {theirs:.0f} s)."
    else:
        cost = f"but with {ours / theirs:.1f}x more work in all ({ours:.0f} s against {theirs:.0f} s)."
    pays = ledger["pays_from"]
    last = (
        f"Composing pays from {pays} configuration{'' if pays == 1 else 's'} on"
        if pays
        else "Composing does not pay at these settings"
    )
    if reached < n and pays:
        return f"{start}, {end} {reach}, {cost}"
    return f"{start}, {end} {reach}, {cost} {last}; here there are {n}."


def _trials(side: str, search: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A side's trials, less the winner where it is the middle configuration's own run."""
    tried = list(search[side])
    if tried and (side == "baseline" or rows[search["configuration"]]["share"] in (None, 1.0)):
        tried = [trial for trial in tried if trial["learning_rate"] != search["chosen"][side]]
    return tried
