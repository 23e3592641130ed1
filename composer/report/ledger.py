"""The ledger: all work of both sides, in seconds and in steps of dense training, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .growth import Work, block_seconds, lines, pairs, totals
from .records import SIDES, Entry, Ledger, Row, Run, Search, Side, Training, Trial

JOINT = "joint tuning, all configurations together"
"""The row of what all configurations learn as one network."""
TRIED = "learning-rate search of joint tuning"
"""The row of its shorter tries."""


def ledger_of(work: Work, dense: Run | None) -> Ledger:
    """Add up what each side did.

    The composed side pays for pruning, the block phase with its joint steps, its learning-rate searches, composing, and
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
    searched = {side: _seconds(some) for side, some in trials.items()}
    searched["composed"] += _seconds(work.search.joint)
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
    tries = work.search.joint
    yield entry(TRIED, "composed", _seconds(tries), len(tries), _steps(tries))
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
    # search's winner, a whole run of the configuration that was tried, been charged already.
    tried = list(search.of(side))
    if search.configuration is None:
        return tried
    ours = search.configuration if search.finished is None else search.finished
    if side == "baseline" or rows[ours].share in (None, 1.0):
        tried = [trial for trial in tried if trial.learning_rate != search.chosen[side]]
    return tried


def pays_from(gaps: list[float]) -> int | None:
    """The number of configurations from which composing costs no more than the baselines.

    Args:
        gaps: composed minus baseline seconds of the first 1, 2, … configurations. Beyond them the mean
            slope is continued; None when it pays at no number. A gap that opens again later does not count as paid.

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
    """A few sentences that say what the table shows, also when it is a loss."""
    known = pairs(rows)
    if not ledger.rows or not ledger.composed or not ledger.baseline:
        return "Not everything is trained yet: this table holds what there is."
    n, reached = len(rows), [pair for pair in known if pair.row.share is not None]
    free = sum(pair.row.share == 0 for pair in reached)
    lower = sum(_below(row.composed.loss, row.pruned.loss) for row in rows)
    start = f"Just composed, {lower} of {n} are better than just pruned."
    ours, theirs = ledger.composed.seconds, ledger.baseline.seconds
    first = f"{len(reached)} of {n} composed models reach their baseline's loss"
    if free:
        first += f", {'all' if free == n else free} of them without any training of their own"
    if len(reached) < n:
        missing = n - len(reached)
        others = "The other does" if missing == 1 else f"The other {missing} do"
        return f"{first}. {others} not, even with as many steps; so the work of the two sides is not compared. {start}"
    more = f"{theirs / ours:.1f}x less" if ours <= theirs else f"{ours / theirs:.1f}x more"
    work = f"All work, searches included: {ours:.0f} s composed, {theirs:.0f} s baselines, {more}."
    return f"{first}. {work} {pays_text(ledger.pays_from, n)} {start}"


def pays_text(pays: int | None, here: int | None) -> str:
    """From how many configurations on composing pays (None: from no number), and how many there are."""
    if pays is None:
        said = "Composing does not pay at these settings, however many configurations"
    else:
        said = f"Composing pays from {pays} configuration{'' if pays == 1 else 's'} on"
    return f"{said}; here there are {here}." if here is not None else f"{said}."


def _below(loss: float | None, other: float | None) -> bool:
    return loss is not None and other is not None and loss < other
