"""The ledger: all work of both sides, in seconds and in steps of dense training, and what follows from it."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any


def ledger_of(work: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    """Add up what each side did.

    The composed side pays for pruning, the block phase, its learning-rate search, composing, and for each
    configuration the smallest budget that reached the baseline's loss (the whole budget where none did).
    The baseline pays for pruning, its search and its fine-tuning. Validation passes of model-level runs, and
    the smaller budgets that were tried on the way, are measurements and count for neither.

    Args:
        work: ``prune`` (seconds), ``blocks`` (per configuration: node hash -> seconds), ``rows``, ``search``.
        dense: the dense row; its run says what one step costs.

    Returns:
        ``rows`` (work, side, seconds, steps), totals per side, ``pays_from`` and ``here``. A step is the
        measured seconds of one dense training step in the same run.
    """
    rows, search = work["rows"], work["search"]
    control = dense.get("finetuned")
    if not control or any(not row["baseline"] or not row["finetuned"] for row in rows):
        return {
            "step_seconds": None,
            "rows": [],
            "baseline": None,
            "composed": None,
            "pays_from": None,
            "here": len(rows),
        }
    step = control["seconds"] / control["steps"]
    spent_blocks: list[dict[str, float]] = list(accumulate(work["blocks"], lambda a, b: {**a, **b}))
    blocks = [sum(seconds.values()) for seconds in spent_blocks]
    composed = [_composed_seconds(row) for row in rows]
    baseline = [row["baseline"]["seconds"] for row in rows]
    trials = {side: _search_seconds(side, search, rows) for side in ("baseline", "composed")}
    entries = [
        ("prune every variant", "both", work["prune"]),
        ("block-level fine-tuning, once for all", "composed", blocks[-1]),
        ("compose the models", "composed", sum(row["finetuned"]["compose_seconds"] for row in rows)),
        ("learning-rate search", "baseline", trials["baseline"]),
        ("learning-rate search", "composed", trials["composed"]),
        ("fine-tune every configuration whole", "baseline", sum(baseline)),
        ("fine-tune composed models until they reach the baseline's loss", "composed", sum(composed)),
    ]
    total = {
        side: sum(seconds for _, owner, seconds in entries if owner in (side, "both"))
        for side in ("baseline", "composed")
    }
    fixed = trials["composed"] - trials["baseline"]
    gaps = [fixed + spent + sum(composed[: k + 1]) - sum(baseline[: k + 1]) for k, spent in enumerate(blocks)]
    return {
        "step_seconds": step,
        "rows": [{"work": w, "side": s, "seconds": t, "steps": t / step} for w, s, t in entries if t],
        "baseline": {"seconds": total["baseline"], "steps": total["baseline"] / step},
        "composed": {"seconds": total["composed"], "steps": total["composed"] / step},
        "pays_from": pays_from(gaps),
        "here": len(rows),
    }


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


def _search_seconds(side: str, search: dict[str, Any], rows: list[dict[str, Any]]) -> float:
    """Seconds of a side's trials, less the winner where it is the middle configuration's own run."""
    seconds = {t["learning_rate"]: float(t["seconds"]) for t in search[side]}
    if not seconds:
        return 0.0
    if side == "baseline" or rows[search["configuration"]]["share"] in (None, 1.0):
        seconds.pop(search["chosen"][side])
    return sum(seconds.values())


def _composed_seconds(row: dict[str, Any]) -> float:
    if row["share"] is None:
        return float(row["finetuned"]["seconds"])
    return float(next(b["seconds"] for b in row["budgets"] if b["share"] == row["share"]))
