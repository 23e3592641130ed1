"""Suites of benchmarks: what a model is still good for, domain by domain. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import RecipeError, did_you_mean
from ...registry import Registry
from .suite import Suite, SuiteTask

__all__ = ["SUITES", "Suite", "SuiteTask", "chosen_tasks"]

SUITES: Registry[Suite] = Registry(
    "suite",
    {
        "language": "composer.evaluation.suites.language:SUITE",
        "glue": "composer.evaluation.suites.glue:SUITE",
        "squad": "composer.evaluation.suites.squad:SUITE",
        "translation": "composer.evaluation.suites.translation:SUITE",
        "math": "composer.evaluation.suites.math:SUITE",
        "common-sense": "composer.evaluation.suites.common_sense:SUITE",
        "code": "composer.evaluation.suites.code:SUITE",
    },
    group="composer.suites",
)
"""Suite name -> its :class:`Suite`; one file each."""


def chosen_tasks(suites: Sequence[str], tasks: Sequence[str]) -> list[SuiteTask]:
    """The tasks of some suites and single tasks, in the order of the suites, each once.

    Raises:
        RecipeError: a suite or task that there is none of; all of them at once.
    """
    every = {task.name: task for suite in SUITES.all() for task in suite.tasks}
    names = SUITES.names()
    problems = [
        *(_unknown("suite", name, names) for name in suites if name not in names),
        *(_unknown("tasks", name, tuple(every)) for name in tasks if name not in every),
    ]
    if problems:
        raise RecipeError(problems)
    return [task for task in every.values() if task.name in tasks or task.suite in suites]


def _unknown(flag: str, name: str, names: Sequence[str]) -> str:
    return f"--{flag}: got {name!r}; allowed: {', '.join(names)}{did_you_mean(name, names)}"
