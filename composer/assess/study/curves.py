"""Curves of suites (``--parts curves --suite …``): what a model is still good for against the rate.

For each criterion, granularity and rate the base model is pruned, as it is and refitted, and asked the tasks of the
suites; the dense model once. Curves of other models, each in the folder of its own assessment, are drawn beside them
(``--beside``): every model has data of its own, and is measured by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...errors import OutputError
from ...evaluation.suites.comparison import compared
from ...evaluation.suites.runner import Job
from ...evaluation.uncertainty import ALPHA
from ...files.jsonfile import read_json, write_json
from ...files.records import record
from ...files.stats import write_csv
from ..measure.assessed_model import AssessedModel
from ..measure.curves import Point, assigned_to, points
from .best import adjusted_together, columns, pruned_figure
from .contents import SUITE_CURVES, CurveCell, CurvedModel, StudyTask, SuiteCurvesFile, SuitePoint
from .questions import Questions

if TYPE_CHECKING:
    from ...composing.model_pruner import ModelPruner

COLUMNS = (
    *("model", "criterion", "granularity", "rate", "repaired", "sparsity", "task", "measure"),
    *("value", "error", "low", "high", "lost"),
)


class SuiteCurves(Questions):
    """What is asked, of the model pruned in which ways."""

    def __init__(self, subject: AssessedModel) -> None:
        super().__init__(subject)
        self.points = list(points(subject))

    @cached_property
    def pruner(self) -> ModelPruner:
        """On the training split of ``--data``; without data for criteria that look at none."""
        return self.subject.pruner if self.subject.has_data else self.subject.pruner_on(None)

    def place(self, point: Point) -> Path:
        """The folder of a pruned model's answers."""
        granularity, refit = point.granularity.replace(":", "-of-"), "-refitted" if point.repaired else ""
        return self.subject.folder / SUITE_CURVES / f"{point.criterion}-{granularity}-{point.rate:g}{refit}"

    def lineage(self, point: Point) -> dict[str, Any]:
        """What tells a pruned model from others of the same base."""
        r = self.subject.space.recipe
        known = self.subject.has_data
        return {
            "version": __version__,
            **asdict(point),
            "targets": list(self.subject.paths),
            "calibration": self.subject.space.sample_identity() if known else None,
            "damping": r.block.damping,
            "dead_columns": r.dead_columns,
        }

    def measure(self, point: Point) -> dict[str, Job]:
        """Prune, and ask what was not asked yet."""
        jobs = self.jobs(self.place(point), self.lineage(point))
        if missing := self.missing(jobs):
            from ...tensors.parameters import replaced

            assigned = assigned_to(self.subject, point)
            weights, _ = self.pruner.prune(assigned, point.criterion, repair=point.repaired)
            with replaced(self.subject.parameters, weights):
                self.run(missing)
        return jobs


def assess_suite_curves(subject: AssessedModel) -> SuiteCurvesFile:
    """Write ``suite-curves.json`` and its CSV; returns what the first one holds.

    Raises:
        RecipeError: a suite that does not fit the model.
        DataError: a task's data that is missing or cannot be read.
        OutputError: a folder of ``--beside`` that holds no curves of suites.
    """
    beside = [_beside(Path(folder)) for folder in subject.settings.beside]
    curves = SuiteCurves(subject)
    for note in curves.notes:
        subject.progress.note(note)
    measured: dict[Point, dict[str, Job]] = {}
    with subject.progress.bar("curves of suites", 1 + len(curves.points)) as bar:
        curves.measure_dense()
        bar.advance("dense")
        for point in curves.points:
            measured[point] = curves.measure(point)
            bar.advance(f"{point.criterion} {point.rate:g}")
    inputs = {
        "base": subject.space.base.fingerprint,
        "tasks": {name: problems.digest for name, problems in curves.problems.items()},
    }
    content: SuiteCurvesFile = {
        "what": SUITE_CURVES,
        "model": subject.space.base.name,
        "provenance": record(inputs, **subject.repeating),
        "models": [_own(curves, measured), *beside],
        "notes": curves.notes,
    }
    write_json(subject.folder / f"{SUITE_CURVES}.json", content)
    write_csv(subject.folder / f"{SUITE_CURVES}.csv", _rows(content), COLUMNS)
    return content


def _own(curves: SuiteCurves, measured: Mapping[Point, Mapping[str, Job]]) -> CurvedModel:
    tasks = columns(curves.dense)
    adjusted = _against_dense(curves, measured)
    return {
        "name": curves.subject.space.base.place.name,
        "tasks": tasks,
        "data": {name: problems.digest for name, problems in curves.problems.items()},
        "points": [_point(point, jobs, tasks, adjusted) for point, jobs in measured.items()],
        "runtime": [],  # the page takes it from the file beside this one, which may be measured later
    }


def _against_dense(
    curves: SuiteCurves, measured: Mapping[Point, Mapping[str, Job]]
) -> dict[tuple[Point, str], dict[str, Any]]:
    """Differences from the dense model; the p-values of a task's curves are adjusted together (Holm)."""
    found: dict[tuple[Point, str], dict[str, Any]] = {}
    for name, dense in curves.dense.items():
        own = {point: compared(dense, jobs[name]) for point, jobs in measured.items()}
        adjusted = adjusted_together(own)
        for point, d in own.items():
            p = adjusted.get(point)
            real = p is not None and p < ALPHA
            found[point, name] = (
                {"not_compared": d} if isinstance(d, str) else {**d.plain(), "adjusted_p": p, "real": real}
            )
    return found


def _point(
    point: Point,
    jobs: Mapping[str, Job],
    tasks: Sequence[StudyTask],
    against: Mapping[tuple[Point, str], dict[str, Any]],
) -> SuitePoint:
    cells: list[CurveCell] = [
        {**pruned_figure(jobs[task["task"]], task), "against_dense": against[point, task["task"]]} for task in tasks
    ]
    sparsity = next(iter(jobs.values())).result()["sparsity"]
    return {
        "criterion": point.criterion,
        "granularity": point.granularity,
        "rate": point.rate,
        "repaired": point.repaired,
        "sparsity": sparsity,
        "cells": cells,
    }


def _beside(folder: Path) -> CurvedModel:
    """The curves of another assessment, with its runtime where that was measured."""
    path = folder / f"{SUITE_CURVES}.json"
    if not path.is_file():
        raise OutputError(
            f"--beside: {path}: no such file; needed: the folder of another assessment with curves of suites "
            "(compose assess OTHER-MODEL --parts curves --suite …)"
        )
    content = read_json(path, OutputError)
    try:
        model: CurvedModel = content["models"][0]
    except (KeyError, IndexError, TypeError) as bad:
        raise OutputError(f"--beside: {path}: holds no curves of suites; make it again") from bad
    times = folder / "runtime.json"
    told = read_json(times, OutputError) if times.is_file() else {}
    return {**model, "runtime": list(told.get("rows", ()))}


def _rows(content: SuiteCurvesFile) -> list[dict[str, Any]]:
    return [
        {
            "model": model["name"],
            **{key: point.get(key) for key in ("criterion", "granularity", "rate", "repaired", "sparsity")},
            **cell,
            "measure": cell["measures"][0]["name"],
        }
        for model in content["models"]
        for point in model["points"]
        for cell in point["cells"]
    ]
