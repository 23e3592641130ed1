"""Curves: loss, metric and seconds of whole models against the rate, by criterion and granularity; the dense model too.

Every target is pruned at the same rate: attention by heads, linear targets in the granularity asked for, and as single
weights where that does not fit. Nothing is trained.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...pruning.criteria import CRITERIA
from ...scheme.configurations import Assignment, Configurations, Spec, resolve
from ...scheme.layout import Layout
from ...scheme.shapes import parse_shape
from ...tasks.metrics.table import metric_of
from ..contents import CurvePoint, CurvesFile, MetricValue
from .assessed_model import AssessedModel

COLUMNS = (
    *("criterion", "granularity", "rate", "repaired", "removed_share"),
    *("loss", "metric", "interval", "seconds", "seconds_per_example", "seconds_dense"),
)
TIMED = 16
"""Examples of a pass that is timed."""
REPEATS = 2
"""Passes of which the fastest counts: what else runs on a machine can only make one slower."""

NOISE = 0.1
"""Times that differ by less than this share are called the same."""


@dataclass(frozen=True)
class Point:
    """A whole model: every target at one rate."""

    criterion: str
    granularity: str
    rate: float
    repaired: bool


def assess_curves(subject: AssessedModel) -> CurvesFile:
    """Write ``curves.json`` and its CSV; returns what the first one holds."""
    wished = list(points(subject))
    journal = subject.journal("curves", scored=subject.settings.scored)
    with subject.progress.bar("curves", len(wished) + 1) as bar:
        dense = journal.row(("dense",), lambda: _measured(subject, subject.measure.dense))
        bar.advance("dense")
        rows: list[CurvePoint] = []
        for point in wished:
            key = ("point", *asdict(point).values())
            rows.append(_row(point, journal.row(key, partial(_pruned, subject, point))))
            bar.advance(f"{point.criterion} {point.rate:g}")
    name, timed = subject.space.task.main_metric, min(TIMED, len(subject.scored))
    metric: MetricValue = {"name": name, "value": dense["metric"], "higher_is_better": metric_of(name).higher_is_better}
    content: CurvesFile = {
        **subject.header("curves", criteria=list(subject.settings.criteria), scored=subject.settings.scored),
        "dense": {
            "loss": dense["loss"],
            "metric": metric,
            "interval": dense.get("interval"),
            "seconds": dense["seconds"],
            "seconds_per_example": dense["seconds_per_example"],
        },
        "rows": rows,
        "examples": len(subject.examples),
        "scored": len(subject.scored),
        "unit": subject.unit,
        "speed_note": speed_note([(row["seconds_dense"], row["seconds"]) for row in rows], timed),
    }
    write_json(subject.folder / "curves.json", content)
    write_csv(subject.folder / "curves.csv", rows, COLUMNS)
    return content


def _row(point: Point, figures: Mapping[str, Any]) -> CurvePoint:
    return {
        "criterion": point.criterion,
        "granularity": point.granularity,
        "rate": point.rate,
        "repaired": point.repaired,
        "removed_share": figures["removed_share"],
        "loss": figures["loss"],
        "metric": figures["metric"],
        "interval": figures.get("interval"),
        "seconds": figures["seconds"],
        "seconds_per_example": figures["seconds_per_example"],
        "seconds_dense": figures["seconds_dense"],
    }


def points(subject: AssessedModel) -> Iterator[Point]:
    """What is measured; pairs of criterion and granularity that make no sense are left out, N:M has its one rate."""
    for criterion in subject.settings.criteria:
        for granularity in subject.settings.granularities:
            shape = parse_shape(granularity)
            if shape.kind not in CRITERIA.get(criterion).shapes:
                continue
            rates = (shape.density_removed,) if shape.kind == "N:M" else subject.settings.rates
            for rate in rates:
                for repaired in (False, True) if subject.settings.repair else (False,):
                    yield Point(criterion, granularity, rate, repaired)


def assigned_to(subject: AssessedModel, point: Point) -> Assignment:
    """The configuration of a point, as if it stood in a ``conf.json``."""
    layout = subject.layout
    whole: dict[str, float | Spec] = {}
    followers = _followers(layout, point.granularity)
    for path in subject.paths:
        target, shape = layout.target(path), parse_shape(point.granularity)
        criterion = subject.criterion_of(target, point.criterion)
        if path in followers:
            continue
        if target.kind == "attention" or shape.problem(layout, path, point.rate):
            whole[path] = Spec(rate=point.rate, criterion=criterion)
        else:
            whole[path] = Spec(rate=point.rate, criterion=criterion, granularity=point.granularity)
    return resolve(Configurations(configurations=[whole]), layout, where="--granularities")[0]


def assigned_singly(subject: AssessedModel, criterion: str, granularity: str, rate: float) -> Assignment:
    """The configuration in which all targets lose single weights, attention too, as the published studies prune; those
    that the pattern does not fit lose them in none.
    """
    layout, shape = subject.layout, parse_shape(granularity)
    whole: dict[str, float | Spec] = {
        path: Spec(
            rate=rate,
            criterion=criterion,
            granularity="unstructured" if shape.problem(layout, path, rate) else granularity,
        )
        for path in subject.paths
    }
    return resolve(Configurations(configurations=[whole]), layout, where="--granularities")[0]


def speed_note(pairs: Sequence[tuple[float, float]], examples: int) -> str:
    """What the seconds say about masks and speed, in a sentence or two.

    Args:
        pairs: seconds of the dense and of the masked model, one measured right after the other: what else the machine
            does changes in the course of a sweep.
    """
    if not pairs:
        return ""
    dense, masked = ([pair[i] for pair in pairs] for i in (0, 1))
    ratio = median(before / after for before, after in pairs)
    sentence = (
        f"Seconds of a forward pass over the same {examples} examples: {min(dense):.3g} to {max(dense):.3g} s "
        f"dense, {min(masked):.3g} to {max(masked):.3g} s with masks; one after the other, in the median {ratio:.2f} "
        "times as fast with masks. "
    )
    reason = "a masked weight is a zero in a dense matrix, which is multiplied like any other"
    if ratio <= 1 + NOISE:
        return f"{sentence}Masks bring no speed here: {reason}."
    return f"{sentence}That is not what masks do, as {reason}: look for what else differed."


def _followers(layout: Layout, granularity: str) -> set[str]:
    """Projections that follow the neurons of others and take no rate of their own."""
    if granularity != "neuron":
        return set()
    wholes = [layout.feed_forward(path) for path in layout.paths]
    return {p.path for whole in wholes if whole is not None for p in whole.projections[1:]}


def _pruned(subject: AssessedModel, point: Point) -> dict[str, Any]:
    from ...composing.repair import removed_weights
    from ...tensors.parameters import replaced

    weights, removed = subject.pruner.prune(assigned_to(subject, point), point.criterion, repair=point.repaired)
    gone = sum(removed_weights(subject.layout, subject.paths, removed).values())
    part = gone / subject.layout.parameters(subject.paths)
    dense = min(_seconds(subject) for _ in range(REPEATS))
    loss = subject.loss_with(weights)
    with replaced(subject.parameters, weights):
        return {"removed_share": part, **_measured(subject, loss), "seconds_dense": dense}


def _measured(subject: AssessedModel, loss: float) -> dict[str, Any]:
    """Metric, with its 95 % interval, and seconds of the model as it now is, beside its loss."""
    from ...evaluation.intervals import intervals_of

    task, data = subject.space.task, subject.scored
    seconds = min(_seconds(subject) for _ in range(REPEATS))
    score = task.score(subject.model, data)
    return {
        "loss": loss,
        "metric": score.metrics[task.main_metric],
        "interval": intervals_of(score, task).get(task.main_metric),
        "seconds": seconds,
        "seconds_per_example": seconds / min(TIMED, len(data)),
    }


def _seconds(subject: AssessedModel) -> float:
    """Of one forward pass; not of generation, which takes longer when a broken model does not come to an end."""
    from ...tasks.loss import mean_loss
    from .changed_loss import batch_size_on

    size, data = batch_size_on(next(subject.model.parameters()).device), subject.scored.first(TIMED)
    start = time.perf_counter()
    mean_loss(subject.model, subject.space.task, data, batch_size=size)  # its sums are read back: a device has finished
    return time.perf_counter() - start
