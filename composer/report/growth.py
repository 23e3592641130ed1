"""How work and quality grow with the number of configurations: what the ledger's picture is drawn from.

Everything is plain data, so that a reader of ``results/comparison.json`` can do the sums again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

Data = dict[str, Any]
Points = list[tuple[float, float]]
"""Seconds, and the mean validation loss that was reached by then."""


def totals(work: Data, search: dict[str, float], step: float) -> list[Data]:
    """All work of both sides for the first 1, 2, … configurations, in the scheme's order; ``blocks`` is a part of it.

    Masks, searches and the joint phase count in full from the first configuration on; blocks when the first
    configuration that has them comes.

    Args:
        work: as :func:`composer.report.ledger.ledger_of` takes it.
        search: side -> seconds of its learning-rate search.
        step: seconds of a dense training step.
    """
    rows, own = work["rows"], {"baseline": 0.0, "composed": 0.0}
    found = []
    for k, (row, blocks) in enumerate(zip(rows, block_seconds(work), strict=True), 1):
        own["baseline"] += row["baseline"]["seconds"]
        own["composed"] += row["finetuned"]["compose_seconds"] + charged(row)["seconds"]
        spent = {side: work["prune"] + search[side] + own[side] + blocks * (side == "composed") for side in own}
        told = {side: {"seconds": seconds, "steps": seconds / step} for side, seconds in spent.items()}
        found.append({"configurations": k, "blocks": blocks, **told})
    return found


def block_seconds(work: Data) -> list[float]:
    """Seconds of all blocks, and of the joint phase, of the first 1, 2, … configurations."""
    spent: Iterable[dict[str, float]] = accumulate(work["blocks"], lambda a, b: {**a, **b})
    return [sum(seconds.values()) for seconds in spent]


def charged(row: Data) -> Data:
    """The run that the composed side pays for: the smallest budget that reached, else the whole one."""
    if row["share"] is None:
        return {"share": 1.0, **row["finetuned"]}
    found: Data = next(budget for budget in row["budgets"] if budget["share"] == row["share"])
    return found


def lines(work: Data, search: dict[str, float], step: float) -> list[Data]:
    """For the first 1, 2, … configurations: mean validation loss of both sides against all of their work.

    The ends are those of :func:`totals`; in between, a side's models are trained side by side, and the best weights so
    far count, as they are what would be kept.
    """
    found: list[Data] = []
    for k, blocks in enumerate(block_seconds(work), 1):
        rows = work["rows"][:k]
        alone = _together([row["baseline"]["curve"] for row in rows], work["prune"] + search["baseline"])
        ours = _ours(work, rows, blocks, search["composed"])
        sides = {"baseline": alone, "composed": ours}
        told = {
            side: [{"seconds": at, "steps": at / step, "loss": loss} for at, loss in points]
            for side, points in sides.items()
        }
        found.append({"configurations": k, **told})
    return found


def _ours(work: Data, rows: Sequence[Data], blocks: float, search: float) -> Points:
    """Pruned; blocks made; joint steps; composed and finished."""
    points = [(work["prune"], _mean([row["pruned"]["loss"] for row in rows]))]
    joint = work.get("joint") or {"seconds": 0.0, "curve": []}
    made = work["prune"] + blocks - joint["seconds"]
    best = float("inf")
    for place in joint["curve"]:
        here = [place["losses"][i] for i in range(len(rows))]
        if None in here:
            break  # a configuration that was added afterwards
        if place["mean"] is not None and place["mean"] < best:
            best, kept = place["mean"], _mean(here)
        points.append((made + place["seconds"], kept))
    composed = work["prune"] + blocks + search + sum(row["finetuned"]["compose_seconds"] for row in rows)
    runs = [charged(row) for row in rows]
    curves = [run.get("curve") or [[0.0, run["loss"]]] for run in runs]
    return points + _together(curves, composed)


def _together(curves: Sequence[Sequence[Sequence[float]]], start: float) -> Points:
    """Runs side by side: the seconds of all added up, the mean of their best losses so far.

    A run with fewer points than others waits at its end.
    """
    best = [list(accumulate((loss for _, loss in curve), min)) for curve in curves]
    points = []
    for j in range(max(map(len, curves))):
        at = [min(j, len(curve) - 1) for curve in curves]
        spent = sum(curve[a][0] for curve, a in zip(curves, at, strict=True))
        points.append((start + spent, _mean([losses[a] for losses, a in zip(best, at, strict=True)])))
    return points


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
