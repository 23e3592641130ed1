"""Calibration: one criterion with several calibration sets, each evaluated on several data sets, as a matrix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DataError
from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...pruning.criteria import CRITERIA
from ...pruning.criteria.criterion import SAMPLED
from ...tasks.data.formats import READERS, TEXT_READERS
from ...workspace import Workspace
from ..contents import CalibrationCell, CalibrationFile
from .assessed_model import AssessedModel
from .curves import Point, assigned_to

if TYPE_CHECKING:
    from torch import Tensor

    from ...tasks.task import Examples, Task

COLUMNS = ("calibration", "task", "loss", "loss_pruned", "metric", "interval", "metric_name", "examples")


def assess_calibrations(subject: AssessedModel) -> CalibrationFile:
    """Write ``calibration.json`` and its CSV; returns what the first one holds.

    The recipe's own calibration sample is the first row, and its own validation examples the first column.

    Raises:
        ConfigError: no calibration sets were given.
        DataError: one that cannot be read as examples of the task.
    """
    if not subject.settings.calibrations:
        raise ConfigError("--calibration: nothing given; name one or more files, folders or hub datasets")
    criterion, rate = criterion_for(subject), subject.settings.sparsity
    samples = _samples(subject)
    evaluations = _evaluations(subject)
    repair, scored = subject.settings.repair, subject.settings.scored
    inputs = {"criterion": criterion, "rate": rate, "repair": repair, "scored": scored}
    journal = subject.journal("calibration", **inputs)
    rows: list[CalibrationCell] = []
    with subject.progress.bar("calibration", len(samples) * len(evaluations)) as bar:
        for name, sample in samples.items():
            keys = {task: ("cell", sample.digest, data.digest) for task, (_, data) in evaluations.items()}
            missing = [task for task, key in keys.items() if not journal.holds(*key)]
            pruned = _pruned(subject, sample, criterion, rate) if missing else {}
            for task, key in keys.items():
                cell = journal.row(key, partial(_cell, subject, pruned, *evaluations[task]))
                rows.append(_row(name, task, cell))
                bar.advance(name)
    content: CalibrationFile = {
        **subject.header("calibration", **inputs, samples={name: data.digest for name, data in samples.items()}),
        "criterion": criterion,
        "rate": rate,
        "repair": subject.settings.repair,
        "unit": subject.unit,
        "rows": rows,
    }
    write_json(subject.folder / "calibration.json", content)
    write_csv(subject.folder / "calibration.csv", rows, COLUMNS)
    return content


def _row(calibration: str, task: str, cell: Mapping[str, Any]) -> CalibrationCell:
    return {
        "calibration": calibration,
        "task": task,
        "loss": cell["loss"],
        "loss_pruned": cell["loss_pruned"],
        "metric": cell["metric"],
        "interval": cell.get("interval"),
        "metric_name": cell["metric_name"],
        "examples": cell["examples"],
    }


def criterion_for(subject: AssessedModel) -> str:
    """The first one asked for that looks at data; the first one where none does (then only repair differs)."""
    looking = [c for c in subject.settings.criteria if CRITERIA.get(c).needs & SAMPLED]
    fitting = [c for c in looking if "unstructured" in CRITERIA.get(c).shapes]
    return (fitting or list(subject.settings.criteria))[0]


@contextmanager
def opened(subject: AssessedModel, place: str) -> Iterator[Workspace]:
    """The recipe with the data at ``place``; a single file is taken for the training split of a folder.

    Raises:
        DataError: what is there cannot be read; it names ``place``.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        yield Workspace(subject.space.recipe.model_copy(update={"data": place}))
        return
    if path.suffix not in (allowed := {**READERS, **TEXT_READERS}):
        raise DataError(f"--calibration: {place}: cannot be read; allowed: {', '.join(allowed)}, or a folder")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"train{path.suffix}").symlink_to(path.resolve())
        try:
            yield Workspace(subject.space.recipe.model_copy(update={"data": folder}))
        except DataError as bad:
            staged = f"{folder}/train{path.suffix}"
            raise DataError([p.replace(staged, place).replace(folder, place) for p in bad.problems]) from None


def _samples(subject: AssessedModel) -> dict[str, Examples]:
    """Name -> what is drawn from; all are read before anything is computed."""
    samples = {_own(subject): subject.space.examples("train")}
    for place in subject.settings.calibrations:
        with opened(subject, place) as space:
            samples[place] = space.examples("train")
    return samples


def _evaluations(subject: AssessedModel) -> dict[str, tuple[Task, Examples]]:
    """Name -> task and validation examples."""
    evaluations = {_own(subject): (subject.space.task, subject.examples)}
    for place in subject.settings.evaluations:
        space = Workspace(subject.space.recipe.model_copy(update={"data": place}))
        evaluations[place] = (space.task, space.examples("valid"))
    return evaluations


def _own(subject: AssessedModel) -> str:
    return subject.space.recipe.data or "demo"


def _pruned(subject: AssessedModel, sample: Examples, criterion: str, rate: float) -> dict[str, dict[str, Tensor]]:
    """Weights of the whole model at ``rate``, before and, where asked for, after repair."""
    pruner = subject.pruner_on(sample)
    assigned = assigned_to(subject, Point(criterion, "unstructured", rate, repaired=False))
    ways = {"pruned": False, **({"repaired": True} if subject.settings.repair else {})}
    return {name: pruner.prune(assigned, criterion, repair=repair)[0] for name, repair in ways.items()}


def _cell(subject: AssessedModel, pruned: dict[str, dict[str, Tensor]], task: Task, data: Examples) -> dict[str, Any]:
    """What one calibration set is worth on one data set: losses, and the metric of what is shown."""
    from ...evaluation.intervals import intervals_of
    from ...tasks.loss import mean_loss
    from ...tensors.parameters import replaced
    from .changed_loss import batch_size_on

    size = batch_size_on(next(subject.model.parameters()).device)
    losses, metric, interval = {}, None, None
    for name, weights in pruned.items():
        with replaced(subject.parameters, weights):
            losses[name] = mean_loss(subject.model, task, data, batch_size=size)
            if name == [*pruned][-1]:
                score = task.score(subject.model, data.first(subject.settings.scored))
                metric = score.metrics[task.main_metric]
                interval = intervals_of(score, task).get(task.main_metric)
    shown = losses["repaired"] if "repaired" in losses else losses["pruned"]
    return {
        "loss": shown,
        "loss_pruned": losses["pruned"],
        "metric": metric,
        "interval": interval,
        "metric_name": task.main_metric,
        "examples": len(data),
    }
