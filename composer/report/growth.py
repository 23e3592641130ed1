"""How work and quality grow with the number of configurations: what the ledger's picture is drawn from.

Everything is also in ``results/comparison.json``, so that a reader of that file can do the sums again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from .records import SIDES, Budget, Growth, Line, Masks, Point, PrunedRun, Row, Search, Side, Spent

Losses = list[tuple[float, float]]
"""Seconds, and the mean validation loss that was reached by then."""


@dataclass(frozen=True)
class JointPoint:
    """One validation of the joint phase: the mean loss, and each configuration's where it was there already."""

    seconds: float
    mean: float | None
    losses: Sequence[float | None]


@dataclass(frozen=True)
class JointPhase:
    """What all configurations learnt together as one network, and how many they were then."""

    seconds: float
    steps: int
    configurations: int
    curve: Sequence[JointPoint]


@dataclass(frozen=True)
class Work:
    """What both sides did.

    Attributes:
        prune: seconds of pruning all variants.
        blocks: for each configuration the seconds of its nodes by hash, the joint phase's among them.
        rows: the table's, in the scheme's order.
        variants, blocks_made: how many, where that is known.
        block_steps: optimiser steps of all blocks; None for a trainer that takes none.
    """

    prune: float
    blocks: Sequence[Mapping[str, float]]
    rows: Sequence[Row]
    search: Search
    joint: JointPhase | None = None
    variants: int | None = None
    blocks_made: int | None = None
    block_steps: int | None = None
    masks: Masks | None = None


@dataclass(frozen=True)
class Pair:
    """A configuration with both of its whole runs."""

    row: Row
    baseline: PrunedRun
    composed: PrunedRun

    @property
    def charged(self) -> Budget | PrunedRun:
        """The run that the composed side pays for: the smallest budget that reached, else the whole one."""
        if self.row.share is None:
            return self.composed
        return next(budget for budget in self.row.budgets if budget.share == self.row.share)


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """The rows of which both sides are trained."""
    return [Pair(row, row.baseline, row.finetuned) for row in rows if row.baseline and row.finetuned]


def totals(work: Work, searched: Mapping[Side, float], step: float) -> list[Growth]:
    """All work of both sides for the first 1, 2, … configurations, in the scheme's order; ``blocks`` is a part of it.

    Masks, searches and the joint phase count in full from the first configuration on; blocks when the first
    configuration that has them comes.

    Args:
        searched: seconds of each side's learning-rate search.
        step: seconds of a dense training step.
    """
    own: dict[Side, float] = dict.fromkeys(SIDES, 0.0)
    growth = []
    for k, (pair, blocks) in enumerate(zip(pairs(work.rows), block_seconds(work), strict=True), 1):
        own["baseline"] += pair.baseline.seconds
        own["composed"] += pair.composed.compose_seconds + pair.charged.seconds
        spent = {side: work.prune + searched[side] + own[side] + blocks * (side == "composed") for side in SIDES}
        both = {side: Spent(seconds=seconds, steps=seconds / step) for side, seconds in spent.items()}
        growth.append(Growth(configurations=k, blocks=blocks, baseline=both["baseline"], composed=both["composed"]))
    return growth


def block_seconds(work: Work) -> list[float]:
    """Seconds of all blocks, and of the joint phase, of the first 1, 2, … configurations."""
    # A block that an earlier configuration brought is already paid for: the union counts it once.
    spent: Iterable[Mapping[str, float]] = accumulate(work.blocks, lambda a, b: {**a, **b})
    return [sum(seconds.values()) for seconds in spent]


def lines(work: Work, searched: Mapping[Side, float], step: float) -> list[Line]:
    """For the first 1, 2, … configurations: mean validation loss of both sides against all of their work.

    The ends are those of :func:`totals`; in between, a side's models are trained side by side, and the best weights so
    far count, as they are what would be kept.
    """

    def points(losses: Losses) -> tuple[Point, ...]:
        return tuple(Point(seconds=at, steps=at / step, loss=loss) for at, loss in losses)

    found, known = [], pairs(work.rows)
    for k, blocks in enumerate(block_seconds(work), 1):
        alone = _together([pair.baseline.curve for pair in known[:k]], work.prune + searched["baseline"])
        ours = _composed(work, known[:k], blocks, searched["composed"])
        found.append(Line(configurations=k, baseline=points(alone), composed=points(ours)))
    return found


def _composed(work: Work, some: Sequence[Pair], blocks: float, searched: float) -> Losses:
    """The composed side's way: pruned; blocks made; joint steps; composed and finished."""
    points = [(work.prune, _mean([pair.row.pruned.loss for pair in some]))]
    if work.joint:
        points += _joint(work.joint, len(some), work.prune + blocks - work.joint.seconds)
    start = work.prune + blocks + searched + sum(pair.composed.compose_seconds for pair in some)
    runs = [pair.charged for pair in some]
    return points + _together([run.curve or ((0.0, run.loss),) for run in runs], start)


def _joint(joint: JointPhase, count: int, start: float) -> Losses:
    """The mean loss of the first ``count`` configurations, at the weights whose mean over all was lowest so far."""
    points: Losses = []
    best, kept = float("inf"), None
    for point in joint.curve:
        here = point.losses[:count]
        if None in here:
            break  # a configuration that was added afterwards
        if point.mean is not None and point.mean < best:
            best, kept = point.mean, _mean(here)
        if kept is not None:
            points.append((start + point.seconds, kept))
    return points


def _together(curves: Sequence[Sequence[tuple[float, float]]], start: float) -> Losses:
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


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)
