"""Calibration: one criterion with several calibration sets, each evaluated on several data sets, as a matrix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DataError
from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...pruning.criteria import CRITERIA
from ...tasks.data.formats import READERS, TEXT_READERS
from ...workspace import Workspace
from .bench import Bench
from .curves import Point, assigned_to

if TYPE_CHECKING:
    from torch import Tensor

    from ...tasks.task import Examples, Task

COLUMNS = ("calibration", "task", "loss", "loss_pruned", "metric", "metric_name", "examples")


def assess_calibrations(bench: Bench) -> dict[str, Any]:
    """Write ``calibration.json`` and its CSV; returns what the first one holds.

    The recipe's own calibration sample is the first row, and its own validation examples the first column.

    Raises:
        ConfigError: no calibration sets were given.
        DataError: one that cannot be read as examples of the task.
    """
    if not bench.settings.calibrations:
        raise ConfigError("--calibration: nothing given; name one or more files, folders or hub datasets")
    criterion, rate = criterion_for(bench), bench.settings.sparsity
    samples = _samples(bench)
    evaluations = _evaluations(bench)
    inputs = {"criterion": criterion, "rate": rate, "repair": bench.settings.repair, "scored": bench.settings.scored}
    journal = bench.journal("calibration", **inputs)
    rows = []
    with bench.progress.bar("calibration", len(samples) * len(evaluations)) as bar:
        for name, sample in samples.items():
            keys = {task: ("cell", sample.digest, data.digest) for task, (_, data) in evaluations.items()}
            missing = [task for task, key in keys.items() if not journal.holds(*key)]
            pruned = _pruned(bench, sample, criterion, rate) if missing else {}
            for task, key in keys.items():
                cell = journal.row(key, partial(_cell, bench, pruned, *evaluations[task]))
                rows.append({"calibration": name, "task": task, **cell})
                bar.advance(name)
    content = {
        **bench.header("calibration", **inputs, samples={name: data.digest for name, data in samples.items()}),
        "criterion": criterion,
        "rate": rate,
        "repair": bench.settings.repair,
        "unit": bench.unit,
        "rows": rows,
    }
    write_json(bench.folder / "calibration.json", content)
    write_csv(bench.folder / "calibration.csv", rows, COLUMNS)
    return content


def criterion_for(bench: Bench) -> str:
    """The first one asked for that looks at data; the first one where none does (then only repair differs)."""
    looking = [c for c in bench.settings.criteria if CRITERIA.get(c).needs & {"gram", "gradient"}]
    fitting = [c for c in looking if "unstructured" in CRITERIA.get(c).shapes]
    return (fitting or list(bench.settings.criteria))[0]


@contextmanager
def opened(bench: Bench, place: str) -> Iterator[Workspace]:
    """The recipe with the data at ``place``; a single file is taken for the training split of a folder.

    Raises:
        DataError: what is there cannot be read; it names ``place``.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        yield Workspace(bench.space.recipe.model_copy(update={"data": place}))
        return
    if path.suffix not in (allowed := {**READERS, **TEXT_READERS}):
        raise DataError(f"--calibration: {place}: cannot be read; allowed: {', '.join(allowed)}, or a folder")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"train{path.suffix}").symlink_to(path.resolve())
        try:
            yield Workspace(bench.space.recipe.model_copy(update={"data": folder}))
        except DataError as bad:
            staged = f"{folder}/train{path.suffix}"
            raise DataError([p.replace(staged, place).replace(folder, place) for p in bad.problems]) from None


def _samples(bench: Bench) -> dict[str, Examples]:
    """Name -> what is drawn from; all are read before anything is computed."""
    samples = {_own(bench): bench.space.examples("train")}
    for place in bench.settings.calibrations:
        with opened(bench, place) as space:
            samples[place] = space.examples("train")
    return samples


def _evaluations(bench: Bench) -> dict[str, tuple[Task, Examples]]:
    """Name -> task and validation examples."""
    evaluations = {_own(bench): (bench.space.task, bench.examples)}
    for place in bench.settings.evaluations:
        space = Workspace(bench.space.recipe.model_copy(update={"data": place}))
        evaluations[place] = (space.task, space.examples("valid"))
    return evaluations


def _own(bench: Bench) -> str:
    return bench.space.recipe.data or "demo"


def _pruned(bench: Bench, sample: Examples, criterion: str, rate: float) -> dict[str, dict[str, Tensor]]:
    """Weights of the whole model at ``rate``, before and, where asked for, after repair."""
    pruner = bench.pruner_on(sample)
    assigned = assigned_to(bench, Point(criterion, "unstructured", rate, repaired=False))
    ways = {"pruned": False, **({"repaired": True} if bench.settings.repair else {})}
    return {name: pruner.prune(assigned, criterion, repair=repair)[0] for name, repair in ways.items()}


def _cell(bench: Bench, pruned: dict[str, dict[str, Tensor]], task: Task, data: Examples) -> dict[str, Any]:
    """What one calibration set is worth on one data set: losses, and the metric of what is shown."""
    from ...tasks.loss import mean_loss
    from .changed_loss import batch_size_on, replaced

    size = batch_size_on(next(bench.model.parameters()).device)
    losses, metric = {}, None
    for name, weights in pruned.items():
        with replaced(bench.parameters, weights):
            losses[name] = mean_loss(bench.model, task, data, batch_size=size)
            if name == [*pruned][-1]:
                metric = task.score(bench.model, data.first(bench.settings.scored)).metrics[task.main_metric]
    shown = losses["repaired"] if "repaired" in losses else losses["pruned"]
    losses_and_metric = {
        "loss": shown,
        "loss_pruned": losses["pruned"],
        "metric": metric,
        "metric_name": task.main_metric,
    }
    return {**losses_and_metric, "examples": len(data)}
