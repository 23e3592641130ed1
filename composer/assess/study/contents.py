"""What ``study.json`` holds, key by key."""

from __future__ import annotations

from typing import Any, TypedDict

from ..contents import Header
from ..masks.contents import LayerOverlap, Overlap


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


class StudyCell(TypedDict):
    """A model pruned with one set, measured on one task.

    ``best``: its figure is the best of the column, and each other's is really worse. ``as_good``: the best figure, or
    one that the examples cannot tell from it. ``lost`` is the share of what the dense model is above chance that is
    gone (of perplexities their logarithms); None where the dense model is not above chance.
    """

    calibration: str
    task: str
    value: float | None
    error: float | None
    low: float | None
    high: float | None
    lost: float | None
    best: bool
    as_good: bool
    against_best: dict[str, Any] | None
    measures: list[dict[str, Any]]


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
