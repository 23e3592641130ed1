"""What a base model and its pruned versions are asked: the tasks of ``--suite`` that fit it and whose data is there.

Answers are kept as ``compose evaluate --suite`` keeps them, below the folder of the assessment, so that a killed run
goes on where it was and a finished one loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...evaluation.suites import chosen_tasks
from ...evaluation.suites.runner import Job, run
from ...evaluation.suites.suite import Problems, SuiteTask
from ...steps.evaluate_suites import fitting_tasks, load_problems
from ..measure.assessed_model import AssessedModel
from .pruned import StudiedModel

FOLDER = "study"
"""Of the dense model's answers, and of a study's; in the folder of the assessment."""


class Questions:
    """The tasks with their problems, read before anything is measured."""

    def __init__(self, subject: AssessedModel) -> None:
        """Read the problems.

        Raises:
            RecipeError: a suite or task that does not fit the model.
            DataError: a task's data that is missing or cannot be read.
        """
        self.subject = subject
        asked, base = subject.settings.asked, subject.space.base
        fitting, notes = fitting_tasks([base], chosen_tasks(asked.suites, asked.tasks), asked)
        self.options = subject.settings.suite_options
        self.problems: Mapping[str, Problems]
        self.problems, lacking = load_problems(fitting[base.name], asked, self.options)
        self.tasks: list[SuiteTask] = [task for task in fitting[base.name] if task.name in self.problems]
        self.notes = [*notes, *lacking]

    def jobs(self, folder: Path, lineage: Mapping[str, Any] | None) -> dict[str, Job]:
        """All tasks, asked of one model."""
        model = StudiedModel(self.subject, lineage)
        return {task.name: Job(model, task, self.problems[task.name], self.options, folder) for task in self.tasks}

    @cached_property
    def dense(self) -> dict[str, Job]:
        """Those of the dense model, which all parts of an assessment share."""
        return self.jobs(self.subject.folder / FOLDER / "dense", None)

    def measure_dense(self) -> None:
        """Ask the dense model what it was not asked yet."""
        self.run(self.missing(self.dense))

    def missing(self, jobs: Mapping[str, Job]) -> list[Job]:
        """Those whose figures are not there yet."""
        force = self.subject.force
        return [job for job in jobs.values() if not job.is_current(force=force, renew=True)]

    def run(self, jobs: Sequence[Job]) -> None:
        """Ask the model as it is at the moment."""
        for job in jobs:
            run(job, self.subject.progress, force=self.subject.force)
