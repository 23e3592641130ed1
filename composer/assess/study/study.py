"""The calibration study (``--parts calibration --suite …``): pruned with each set, measured on every domain.

For each set, criterion, granularity and rate the base model is pruned (and, unless told otherwise, refitted) and asked
the tasks of the suites; the dense model once. Answers are kept as ``compose evaluate --suite`` keeps them, below
``study/`` in the folder of the assessment, so that a killed run goes on where it was and a finished one
loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...errors import ConfigError
from ...evaluation.suites.runner import Job
from ...files.jsonfile import write_json
from ...files.records import record
from ...files.stats import write_csv
from ..masks.contents import LayerOverlap
from ..masks.overlap import added, likeness
from ..measure.assessed_model import AssessedModel
from ..measure.stored_weights import layers
from .best import cells, columns
from .contents import MaskPair, StudyFile, StudyMatrix
from .pruned import MASKS, Way, assigned, has_masks, read_masks, shared_counts, ways, write_masks
from .questions import FOLDER, Questions
from .sets import CalibrationSet, calibration_sets

if TYPE_CHECKING:
    from ...composing.model_pruner import ModelPruner

COLUMNS = (
    *("criterion", "granularity", "rate", "calibration", "task", "measure", "value", "error", "low", "high"),
    *("lost", "best", "as_good"),
)


class Study(Questions):
    """What is asked, of which models; each piece is made when it is first needed."""

    def __init__(self, subject: AssessedModel) -> None:
        super().__init__(subject)
        self.folder, self.ways = subject.folder / FOLDER, ways(subject)
        self.sets = calibration_sets(subject)
        self._pruners: dict[str, ModelPruner] = {}

    def lineage(self, one: CalibrationSet, way: Way) -> dict[str, Any]:
        """What tells a pruned model from others of the same base."""
        r = self.subject.space.recipe
        return {
            "version": __version__,
            **asdict(way),
            "repair": self.subject.settings.repair,
            "targets": list(self.subject.paths),
            "sample": one.digest,
            "calibration_size": r.calibration_size,
            "seed": r.seed,
            "damping": r.block.damping,
            "dead_columns": r.dead_columns,
        }

    def place(self, one: CalibrationSet, way: Way) -> Path:
        """The folder of a pruned model's answers and masks."""
        return self.folder / one.name / way.name

    def measure(self, one: CalibrationSet, way: Way) -> dict[str, Job]:
        """Prune with one set in one way, and ask what was not asked yet."""
        place, lineage = self.place(one, way), self.lineage(one, way)
        jobs = self.jobs(place, lineage)
        masks = place / MASKS
        missing = self.missing(jobs)
        if missing or self.subject.force or not has_masks(masks, lineage):
            from ...tensors.parameters import replaced

            repair = self.subject.settings.repair
            weights, kept = self._pruner(one).prune(assigned(self.subject, way), way.criterion, repair=repair)
            write_masks(self.subject, masks, kept, lineage)
            with replaced(self.subject.parameters, weights) if missing else nullcontext():
                self.run(missing)
        return jobs

    def _pruner(self, one: CalibrationSet) -> ModelPruner:
        """One pass over a set serves all ways; that of the set before is let go of."""
        if one.name not in self._pruners:
            self._pruners.clear()
            task, examples = one.load()
            self._pruners[one.name] = self.subject.pruner_on(examples, task)
        return self._pruners[one.name]


def assess_study(subject: AssessedModel) -> StudyFile:
    """Write ``study.json`` and its CSV; returns what the first one holds.

    Raises:
        ConfigError: no suite, or criteria for which the set makes no difference.
        RecipeError: a suite that does not fit the model.
        DataError: a set or a task's data that is missing or cannot be read.
    """
    study = Study(subject)
    if not study.ways:
        raise ConfigError("--granularities: none makes sense with --criteria; see docs/criteria.md")
    for note in study.notes:
        subject.progress.note(note)
    measured: dict[Way, dict[str, dict[str, Job]]] = {way: {} for way in study.ways}
    with subject.progress.bar("calibration study", 1 + len(study.sets) * len(study.ways)) as bar:
        study.measure_dense()
        bar.advance("dense")
        for one in study.sets:
            for way in study.ways:
                measured[way][one.name] = study.measure(one, way)
                bar.advance(f"{one.name}: {way.name}")
    content = _content(study, measured)
    write_json(subject.folder / "study.json", content)
    write_csv(subject.folder / "study.csv", _rows(content), COLUMNS)
    return content


def _content(study: Study, measured: Mapping[Way, Mapping[str, Mapping[str, Job]]]) -> StudyFile:
    subject = study.subject
    tasks = columns(study.dense)
    matrices: list[StudyMatrix] = [
        {
            **asdict(way),  # type: ignore[typeddict-item]
            "sparsity": next(iter(next(iter(jobs.values())).values())).result()["sparsity"],
            "cells": cells(jobs, tasks),
            "overlaps": _overlaps(study, way),
        }
        for way, jobs in measured.items()
    ]
    inputs = {
        "base": subject.space.base.fingerprint,
        "sets": {one.name: one.digest for one in study.sets},
        "tasks": {name: problems.digest for name, problems in study.problems.items()},
    }
    recipe = subject.space.recipe
    provenance = record(
        inputs, command=subject.command, data=recipe.data, seed=recipe.seed, device=subject.space.device
    )
    size = recipe.calibration_size
    return {
        "what": "study",
        "model": subject.space.base.name,
        "provenance": provenance,
        "repair": subject.settings.repair,
        "sets": [{"name": s.name, "place": s.place, "examples": size, "read_as": s.read_as} for s in study.sets],
        "tasks": tasks,
        "matrices": matrices,
        "notes": study.notes,
    }


def _overlaps(study: Study, way: Way) -> list[MaskPair]:
    """Of every two sets; two files of masks are in memory at a time."""
    layout, places = study.subject.layout, layers(study.subject.layout)
    found: list[MaskPair] = []
    for a, b in combinations(study.sets, 2):
        first, second = (read_masks(study.place(one, way) / MASKS) for one in (a, b))
        rows = {
            path: shared_counts(first[path], second[path], layout.target(path).parameters)
            for path in study.subject.paths
            if path in first and path in second
        }
        by_layer: list[LayerOverlap] = []
        for layer in dict.fromkeys(places[path][0] for path in rows):
            own = added([counts for path, counts in rows.items() if places[path][0] == layer])
            by_layer.append({"layer": layer, **own, **likeness(own)})
        whole = added(list(rows.values()))
        found.append({"a": a.name, "b": b.name, **whole, **likeness(whole), "layers": by_layer})
    return found


def _rows(content: StudyFile) -> list[dict[str, Any]]:
    measures = {task["task"]: task["measure"] for task in content["tasks"]}
    return [
        {
            **{key: matrix.get(key) for key in ("criterion", "granularity", "rate")},
            **cell,
            "measure": measures[cell["task"]],
        }
        for matrix in content["matrices"]
        for cell in matrix["cells"]
    ]
