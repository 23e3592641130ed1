"""What ``masks.json`` holds, key by key, and what `compose masks` shows of it."""

from __future__ import annotations

from typing import TypedDict

from ..contents import Header


class Counts(TypedDict):
    """Weights that one side or both removed, of so many."""

    removed_a: int
    removed_b: int
    both: int
    total: int


class Likeness(TypedDict):
    """Jaccard of the removed sets, and that of random sets as large; None where nothing is removed."""

    jaccard: float | None
    chance: float | None


class Overlap(Counts, Likeness):
    """How much of what two sources removed is the same."""


class LayerOverlap(Overlap):
    """That of a layer."""

    layer: str


class CellPicture(TypedDict):
    """Two masks made small: a text for each row of cells, a digit for how much of each cell is removed."""

    shape: list[int]
    both: list[str]
    only_a: list[str]
    only_b: list[str]


class TargetOverlap(LayerOverlap):
    """That of a target, or of a variant; ``picture`` is None where many differ more."""

    target: str
    kind: str
    part: str
    picture: CellPicture | None


class PairOverlap(Counts):
    """That of two models or libraries, ``a`` and ``b``: in all, by layer and by target."""

    a: str
    b: str
    jaccard_all: float | None
    chance_all: float | None
    layers: list[LayerOverlap]
    rows: list[TargetOverlap]


class MasksFile(Header):
    """``masks.json``."""

    models: list[str]
    pairs: list[PairOverlap]


def in_all(pair: PairOverlap) -> Overlap:
    """A pair's sums, as those of a layer or a target are."""
    return {
        "removed_a": pair["removed_a"],
        "removed_b": pair["removed_b"],
        "both": pair["both"],
        "total": pair["total"],
        "jaccard": pair["jaccard_all"],
        "chance": pair["chance_all"],
    }
