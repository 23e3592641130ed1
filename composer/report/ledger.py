"""The ledger: all work of both sides, in seconds and in steps of dense training, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .growth import Work, block_seconds, lines, pairs, totals
from .records import SIDES, Entry, Ledger, Row, Run, Search, Side, Training, Trial

JOINT = "joint tuning, all configurations together"
"""The row of what all configurations learn as one network."""


def ledger_of(work: Work, dense: Run | None) -> Ledger:
    """Add up what each side did.

    The composed side pays for pruning, the block phase with its joint steps, its learning-rate search, composing, and
    for each configuration the smallest budget that reached the baseline's loss (the whole budget where none did).
    The baseline pays for pruning, its search and its fine-tuning. Validation passes of whole models, and
    the smaller budgets that were tried on the way, are measurements and count for neither.

    Args:
        dense: the base model's run, which says what one step costs; without it there is nothing to count in.
    """
    rows, known = work.rows, pairs(work.rows)
    if dense is None or len(known) < len(rows):
        return Ledger(here=len(rows), masks=work.masks)
    step = dense.seconds / dense.steps
    trials = {side: _trials(side, work.search, rows) for side in SIDES}
    searched = {side: sum(trial.seconds for trial in some) for side, some in trials.items()}
    growth = totals(work, searched, step)
    return Ledger(
        step_seconds=step,
        rows=tuple(entry for entry in _entries(work, trials, step) if entry.seconds),
        baseline=growth[-1].baseline,
        composed=growth[-1].composed,
        growth=tuple(growth),
        lines=tuple(lines(work, searched, step)) if all(pair.baseline.curve for pair in known) else (),
        pays_from=pays_from([k.composed.seconds - k.baseline.seconds for k in growth]),
        here=len(rows),
        masks=work.masks,
    )


def _entries(work: Work, trials: dict[Side, list[Trial]], step: float) -> Iterator[Entry]:
    """The ledger's lines: what, whose, how many, seconds, and optimiser steps where some were made."""
    known, joint = pairs(work.rows), work.joint

    def entry(what: str, side: str, seconds: float, of: int | None, trained: int | None = None) -> Entry:
        return Entry(work=what, side=side, seconds=seconds, steps=seconds / step, of=of, trained=trained)

    yield entry("prune every variant", "both", work.prune, work.variants)
    blocks = block_seconds(work)[-1] - (joint.seconds if joint else 0.0)
    what = "block-level fine-tuning, once for all"
    yield entry(what, "composed", blocks, work.blocks_made, work.block_steps)
    if joint:
        yield entry(JOINT, "composed", joint.seconds, joint.configurations, joint.steps)
    composing = sum(pair.composed.compose_seconds for pair in known)
    yield entry("compose the models", "composed", composing, len(known))
    for side, some in trials.items():
        yield entry("learning-rate search", side, _seconds(some), len(some), _steps(some))
    alone = [pair.baseline for pair in known]
    yield entry("fine-tune every configuration whole", "baseline", _seconds(alone), len(known), _steps(alone))
    what, runs = "fine-tune composed models until they reach the baseline's loss", [pair.charged for pair in known]
    yield entry(what, "composed", _seconds(runs), len(known), _steps(runs))


def _seconds(trained: Sequence[Training]) -> float:
    return sum(run.seconds for run in trained)


def _steps(trained: Sequence[Training]) -> int:
    return sum(run.steps for run in trained)


def _trials(side: Side, search: Search, rows: Sequence[Row]) -> list[Trial]:
    """A side's trials, less the winner where it is the middle configuration's own run."""
    # The composed side is charged for its smallest budget that reached. Only where that is the whole run has the
    # search's winner, a whole run of the middle configuration, been charged already.
    tried = list(search.of(side))
    if search.configuration is None:
        return tried
    if side == "baseline" or rows[search.configuration].share in (None, 1.0):
        tried = [trial for trial in tried if trial.learning_rate != search.chosen[side]]
    return tried


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


def verdict_of(rows: Sequence[Row], ledger: Ledger) -> str:
    """One or two sentences that say what the table shows, also when it is a loss."""
    known = pairs(rows)
    if not ledger.rows or not ledger.composed or not ledger.baseline:
        return "Not everything is trained yet: this table holds what there is."
    n = len(rows)
    lower = sum(_below(row.composed.loss, row.pruned.loss) for row in rows)
    reached = sum(row.share is not None for row in rows)
    better = sum(pair.composed.loss <= pair.baseline.loss for pair in known)
    ours, theirs = ledger.composed.seconds, ledger.baseline.seconds
    start = f"Composed models start below the baseline in {lower} of {n} configurations"
    end = f"and end at or below it in {better} of {n} at the same number of steps."
    reach = f"They reach the baseline's final loss in {reached} of {n}"
    if reached < n:
        cost = "so the work of the two sides cannot be compared for all of them."
    elif ours <= theirs:
        cost = f"with {theirs / ours:.1f}x less work in all ({ours:.0f} s against {theirs:.0f} s)."
    else:
        cost = f"but with {ours / theirs:.1f}x more work in all ({ours:.0f} s against {theirs:.0f} s)."
    pays = ledger.pays_from
    last = (
        f"Composing pays from {pays} configuration{'' if pays == 1 else 's'} on"
        if pays
        else "Composing does not pay at these settings"
    )
    if reached < n and pays:
        return f"{start}, {end} {reach}, {cost}"
    return f"{start}, {end} {reach}, {cost} {last}; here there are {n}."


def _below(loss: float | None, other: float | None) -> bool:
    return loss is not None and other is not None and loss < other
