"""What ``study.json`` holds, key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ..contents import Header
from ..masks.contents import LayerOverlap, Overlap

if TYPE_CHECKING:
    from ...timing.by_rate import RatePoint


SUITE_CURVES = "suite-curves"
"""What the file of :class:`SuiteCurvesFile` is called, without its suffix."""


class StudyTask(TypedDict):
    """A column: a task of a suite, the measure that models are compared by, and the dense model's figure."""

    task: str
    heading: str
    suite: str
    measure: str
    chance: float | None
    examples: int
    dense: float | None
    dense_error: float | None


class PrunedFigure(TypedDict):
    """A pruned model on one task.

    ``lost`` is the share of what the dense model is above chance that is gone (of perplexities their logarithms); None
    where the dense model is not above chance.
    """

    task: str
    value: float | None
    error: float | None
    low: float | None
    high: float | None
    lost: float | None
    measures: list[dict[str, Any]]


class StudyCell(PrunedFigure):
    """One pruned with one set.

    ``best``: its figure is the best of the column, and each other's is really worse. ``as_good``: the best figure, or
    one that the examples cannot tell from it.
    """

    calibration: str
    best: bool
    as_good: bool
    against_best: dict[str, Any] | None


class MaskPair(Overlap):
    """What the masks of two sets have in common, in all and by layer."""

    a: str
    b: str
    layers: list[LayerOverlap]


class StudyMatrix(TypedDict):
    """One criterion at one rate in one granularity."""

    criterion: str
    granularity: str
    rate: float
    sparsity: float
    cells: list[StudyCell]
    overlaps: list[MaskPair]


class StudySet(TypedDict):
    """A calibration set, and what was drawn from it."""

    name: str
    place: str
    examples: int | None
    read_as: str


class StudyFile(Header):
    """``study.json``."""

    repair: bool
    sets: list[StudySet]
    tasks: list[StudyTask]
    matrices: list[StudyMatrix]
    notes: list[str]


class CurveCell(PrunedFigure):
    """One at a rate; ``against_dense`` is its difference from the dense model on the same examples."""

    against_dense: dict[str, Any]


class SuitePoint(TypedDict):
    """A whole model, every target at one rate; ``sparsity`` is the counted share of the targets' weights."""

    criterion: str
    granularity: str
    rate: float
    repaired: bool
    sparsity: float
    cells: list[CurveCell]


class CurvedModel(TypedDict):
    """The curves of one model.

    Attributes:
        data: digest of each task's problems: curves of one task are drawn together where it is the same.
        runtime: what the model takes at its rates, as its ``runtime.json`` has it; empty where that was not measured.
    """

    name: str
    tasks: list[StudyTask]
    data: dict[str, str]
    points: list[SuitePoint]
    runtime: list[RatePoint]


class SuiteCurvesFile(Header):
    """``suite-curves.json``: this model's curves first, then those that are drawn beside them."""

    models: list[CurvedModel]
    notes: list[str]
