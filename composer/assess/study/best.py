"""The columns of a study: which calibration set is best for a task, and whether that is sure.

The set with the best figure is compared with each other one, on the same examples
(:func:`composer.evaluation.uncertainty.difference`); the p-values of a whole matrix are adjusted together (Holm). It is
called best where every other one is really worse. Picking the best figure first makes single comparisons too bold, as
the picked one was lucky; that all of them must hold, the nearest too, makes up for it. Sets that cannot be told
from the best figure are called as good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ...evaluation.suites.comparison import compared
from ...evaluation.suites.runner import Job
from ...evaluation.uncertainty import ALPHA, Difference, holm
from ...tasks.metrics.table import metric_of
from .contents import PrunedFigure, StudyCell, StudyTask

Key = TypeVar("Key")

Jobs = Mapping[str, Mapping[str, Job]]
"""Calibration set -> task -> its finished job."""


def columns(dense: Mapping[str, Job]) -> list[StudyTask]:
    """The tasks, with the dense model's figures."""
    found: list[StudyTask] = []
    for name, job in dense.items():
        first = job.result()["measures"][0]
        found.append(
            {
                "task": name,
                "heading": job.task.heading,
                "suite": job.task.suite,
                "measure": first["name"],
                "chance": first["chance"],
                "examples": first["examples"],
                "dense": first["value"],
                "dense_error": first["error"],
            }
        )
    return found


def cells(jobs: Jobs, tasks: Sequence[StudyTask]) -> list[StudyCell]:
    """A matrix, set by set."""
    best = {task["task"]: _best(jobs, task) for task in tasks}
    against = {
        (name, task["task"]): compared(own[task["task"]], jobs[best[task["task"]]][task["task"]])
        for name, own in jobs.items()
        for task in tasks
        if name != best[task["task"]]
    }
    adjusted = adjusted_together(against)
    real = {key for key, p in adjusted.items() if p < ALPHA}
    return [_cell(name, task, jobs, best[task["task"]], against, adjusted, real) for name in jobs for task in tasks]


def _best(jobs: Jobs, task: StudyTask) -> str:
    sign = -1 if metric_of(task["measure"]).higher_is_better else 1
    worst = math.inf

    def rank(name: str) -> float:
        value = jobs[name][task["task"]].result()["measures"][0]["value"]
        return worst if value is None else sign * float(value)

    return min(jobs, key=rank)


def _cell(
    name: str,
    task: StudyTask,
    jobs: Jobs,
    best: str,
    against: Mapping[tuple[str, str], Difference | str],
    adjusted: Mapping[tuple[str, str], float],
    real: set[tuple[str, str]],
) -> StudyCell:
    key = name, task["task"]
    found = against.get(key)
    compared_to: dict[str, Any] | None = None
    if isinstance(found, Difference):
        compared_to = {**found.plain(), "best": best, "adjusted_p": adjusted.get(key), "real": key in real}
    elif found is not None:
        compared_to = {"best": best, "not_compared": found}
    others = [other for other in jobs if other != best]
    return {
        "calibration": name,
        **pruned_figure(jobs[name][task["task"]], task),
        "best": name == best and bool(others) and all((other, task["task"]) in real for other in others),
        "as_good": name == best or key not in real,
        "against_best": compared_to,
    }


def adjusted_together(differences: Mapping[Key, Difference | str]) -> dict[Key, float]:
    """The p-values of those that were compared, adjusted together (Holm)."""
    tested = {key: d for key, d in differences.items() if isinstance(d, Difference) and d.p is not None}
    return dict(zip(tested, holm([d.p or 0.0 for d in tested.values()]), strict=True))


def pruned_figure(job: Job, task: StudyTask) -> PrunedFigure:
    """What a pruned model came to on a task."""
    measures = job.result()["measures"]
    first = measures[0]
    return {
        "task": task["task"],
        "value": first["value"],
        "error": first["error"],
        "low": first["low"],
        "high": first["high"],
        "lost": lost(first["value"], task),
        "measures": measures,
    }


def lost(value: float | None, task: StudyTask) -> float | None:
    """The share of what the dense model knows more than chance that is gone; below 0 where it is better than that.

    >>> task = {"dense": 20.0, "chance": 2000.0, "measure": "perplexity"}
    >>> lost(20.0, task), round(lost(200.0, task), 6), lost(2000.0, task)
    (0.0, 0.5, 1.0)
    """
    dense, chance = task["dense"], task["chance"]
    if value is None or dense is None or chance is None:
        return None
    if task["measure"] == "perplexity":
        value, dense, chance = (math.log(max(x, 1.0)) for x in (value, dense, chance))
    above = dense - chance if metric_of(task["measure"]).higher_is_better else chance - dense
    return abs(dense - value) / above * (1 if (value < dense) == (dense > chance) else -1) if above > 0 else None
