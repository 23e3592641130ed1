"""Masks that a fine-tuning learns: the parts `movement` and `rates` of `benchmarks/learn.py`.

`movement`: masks of one learnt run against those of other criteria, masked, repaired in closed form, and after further
training, all sides with the same number of steps in all. `rates`: one run that serves every rate against a run for
each.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learn_bench import Bench, Row, Run


def movement(bench: Bench) -> None:
    """Masks of each criterion."""
    given = bench.given
    run, tune = given.steps, given.tune
    print(f"\nmasks: a movement run of {run} steps (up to {given.rate:.0%} masked) serves every rate; `trained`: ")
    print(f"{tune} steps after that run, {run + tune} for the others, from repaired weights at {given.tune_rate:g}")
    print("removed  criterion  masked  repaired  trained  processor seconds")
    for rate in given.rates:
        for criterion in given.criteria:
            masked, repaired, trained = _rows(bench, criterion, rate)
            losses = f"{masked['loss']:.4f}  {repaired['loss']:.4f}  {trained['loss']:.4f}"
            print(f"{rate:.0%}  {criterion}  {losses}  {masked['cpu'] + repaired['cpu'] + trained['cpu']:.0f}")


def _rows(bench: Bench, criterion: str, rate: float) -> tuple[Row, Row, Row]:
    """Masked, repaired, and trained further, where that is asked at this rate."""
    given, learnt = bench.given, criterion == "movement"
    key = (criterion, rate, *(bench.key(bench.run) if learnt else ()))
    repaired, masked = (
        bench.row(("start", repair, *key), partial(bench.start, criterion, rate, repair=repair))
        for repair in (True, False)
    )
    if rate not in given.trained:
        return masked, repaired, {"loss": float("nan"), "cpu": 0.0}
    steps = given.tune if learnt else given.steps + given.tune

    def tune() -> Row:
        return bench.tuned(bench.pruned(criterion, rate, repair=True), steps, given.tune_rate)

    return masked, repaired, bench.row(("trained", steps, given.tune_rate, *key), tune)


def rates(bench: Bench) -> None:
    """One run for all rates, or a run for each."""
    given, run = bench.given, bench.given.steps
    print(f"\none movement run of {run} steps (up to {given.rate:.0%}) against one for each rate, repaired")
    # What a run takes is a row of its own: whoever looks at its scores first would have it otherwise.
    learnt: dict[Any, Row] = {}
    for goal in dict.fromkeys((given.rate, *given.rates)):
        learnt[goal] = bench.row(("run", *bench.key((run, goal))), partial(_learnt, bench, (run, goal)))
    print("removed  one run for all  a run of its own")
    cost = {"one": learnt[given.rate]["cpu"], "own": 0.0}
    for rate in given.rates:
        one, own = (
            bench.row(
                ("start", True, "movement", rate, *bench.key((run, goal))),
                partial(bench.start, "movement", rate, repair=True, run=(run, goal)),
            )
            for goal in (given.rate, rate)
        )
        cost["one"] += one["cpu"]
        cost["own"] += own["cpu"] + learnt[rate]["cpu"]
        print(f"{rate:.0%}  {one['loss']:.4f}  {own['loss']:.4f}")
    print(f"steps: {run} against {run * len(given.rates)}; processor seconds, with pruning, repair and measuring:")
    print(f"{cost['one']:.0f} against {cost['own']:.0f}, {cost['one'] / cost['own']:.0%} of what the others take")


def _learnt(bench: Bench, run: Run) -> Row:
    """Make the scores of a movement run; they stay in the folder."""
    return {"scores": len(bench.calibrated(run).movement)}
