"""How much of what several pruned models or libraries removed is the same: Jaccard of the removed sets.

For sets of removed weights ``A`` and ``B`` it is ``|A ∩ B| / |A ∪ B|``: 1 for the same, 0 for nothing in common. Two
random sets that take the fractions ``a`` and ``b`` of the weights have ``ab / (a + b - ab)`` in common, which is what a
figure has to be compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ...files.jsonfile import write_json
from ...files.records import record
from ...files.stats import write_csv
from ...progress import SILENT, Progress
from .contents import CellPicture, Counts, LayerOverlap, Likeness, MasksFile, Overlap, PairOverlap, TargetOverlap
from .sources import Piece, open_sources, shared

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNTS = ("removed_a", "removed_b", "both", "total")
COLUMNS = ("a", "b", "target", "kind", "layer", *COUNTS, "jaccard", "chance")
SIDE = 48
"""Most cells of a picture along a side."""
PICTURES = 24
"""Most pictures of a pair: of the targets that differ most."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
"""How much of a cell is removed, in 35ths."""


def compare_masks(names: Sequence[str], folder: Path, *, progress: Progress = SILENT) -> MasksFile:
    """Write ``masks.json`` and ``masks.csv`` into ``folder``; returns what the first one holds.

    Args:
        names: model folders, or libraries of pruned blocks; two or more.

    Raises:
        ModelError, LibraryError: what cannot be compared; one in which nothing is removed.
    """
    with ExitStack() as files:
        sources = open_sources(names, files)
        keys = shared(sources)
        rows: list[list[TargetOverlap]] = [[] for _ in combinations(names, 2)]
        totals = [0] * len(sources)
        with progress.bar("masks", len(keys)) as bar:
            for key in keys:
                piece = sources[0].pieces[key]
                removed = [source.removed(key) for source in sources]
                for i, matrices in enumerate(removed):
                    totals[i] += sum(int(matrix.sum()) for matrix in matrices)
                for own, (a, b) in zip(rows, combinations(removed, 2), strict=True):
                    own.append(_row(piece, a, b))
                bar.advance(piece.name)
    count = sum(row["total"] for row in rows[0])
    if none := [name for name, total in zip(names, totals, strict=True) if not total]:
        raise ModelError([f"{name}: nothing is removed: none of its {count:,} target weights is 0" for name in none])
    content: MasksFile = {
        "what": "masks",
        "model": ", ".join(names),
        "provenance": record({"models": list(names)}),
        "models": list(names),
        "pairs": [_pair(*pair, own) for pair, own in zip(combinations(names, 2), rows, strict=True)],
    }
    write_json(folder / "masks.json", content)
    flat = [{"a": pair["a"], "b": pair["b"], **row} for pair in content["pairs"] for row in pair["rows"]]
    write_csv(folder / "masks.csv", flat, COLUMNS)
    return content


def _row(piece: Piece, a: Sequence[NDArray[Any]], b: Sequence[NDArray[Any]]) -> TargetOverlap:
    counts: Counts = {
        "removed_a": sum(int(x.sum()) for x in a),
        "removed_b": sum(int(y.sum()) for y in b),
        "both": sum(int((x & y).sum()) for x, y in zip(a, b, strict=True)),
        "total": sum(int(x.size) for x in a),
    }
    return {
        "target": piece.name,
        "kind": piece.kind,
        "layer": piece.layer,
        "part": piece.part,
        **counts,
        **likeness(counts),
        "picture": picture(_stacked(a), _stacked(b)),
    }


def _stacked(matrices: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One below the other; narrower ones get columns in which nothing is removed."""
    width = max(matrix.shape[1] for matrix in matrices)
    return np.concatenate([np.pad(matrix, ((0, 0), (0, width - matrix.shape[1]))) for matrix in matrices])


def _pair(a: str, b: str, rows: list[TargetOverlap]) -> PairOverlap:
    """A pair with its sums over layers and in all; only the pictures that differ most stay."""
    for row in differing(rows)[PICTURES:]:
        row["picture"] = None
    layers: list[LayerOverlap] = [
        {"layer": layer, **_sums([row for row in rows if row["layer"] == layer])}
        for layer in dict.fromkeys(row["layer"] for row in rows)
    ]
    counts = added(rows)
    alike = likeness(counts)
    return {
        "a": a,
        "b": b,
        "jaccard_all": alike["jaccard"],
        "chance_all": alike["chance"],
        **counts,
        "layers": layers,
        "rows": rows,
    }


def _sums(rows: Sequence[TargetOverlap]) -> Overlap:
    counts = added(rows)
    return {**counts, **likeness(counts)}


def added(rows: Sequence[Counts]) -> Counts:
    """The counts of several targets together."""
    return {
        "removed_a": sum(row["removed_a"] for row in rows),
        "removed_b": sum(row["removed_b"] for row in rows),
        "both": sum(row["both"] for row in rows),
        "total": sum(row["total"] for row in rows),
    }


def likeness(counts: Counts) -> Likeness:
    """Jaccard of the removed sets, and that of random sets as large; None where nothing is removed.

    >>> likeness({"removed_a": 50, "removed_b": 50, "both": 40, "total": 100})
    {'jaccard': 0.6666666666666666, 'chance': 0.3333333333333333}
    """
    either = counts["removed_a"] + counts["removed_b"] - counts["both"]
    if not either:
        return {"jaccard": None, "chance": None}
    a, b = counts["removed_a"] / counts["total"], counts["removed_b"] / counts["total"]
    return {"jaccard": counts["both"] / either, "chance": a * b / (a + b - a * b)}


def differing(rows: Iterable[TargetOverlap]) -> list[TargetOverlap]:
    """Rows with something removed, those that differ most first: by the number of weights that only one side lacks."""
    own = [row for row in rows if row["jaccard"] is not None]
    return sorted(own, key=lambda row: (row["jaccard"] or 0.0, row["target"]))


def picture(a: NDArray[Any], b: NDArray[Any]) -> CellPicture:
    """Two masks (out, in), made small: of every cell how much of it is removed by both and by one side only.

    Each of these is a digit of :data:`DIGITS`, each row of cells a text.
    """
    edges = [_edges(size) for size in a.shape]
    area = np.outer(*(np.diff([*at, size]) for at, size in zip(edges, a.shape, strict=True)))
    return {
        "shape": list(a.shape),
        "both": _digits(a & b, edges, area),
        "only_a": _digits(a & ~b, edges, area),
        "only_b": _digits(b & ~a, edges, area),
    }


def _digits(part: NDArray[Any], edges: Sequence[NDArray[Any]], area: NDArray[Any]) -> list[str]:
    sums = np.add.reduceat(np.add.reduceat(part, edges[0], axis=0, dtype=np.int64), edges[1], axis=1)
    cells = np.rint(sums / area * (len(DIGITS) - 1)).astype(int)
    return ["".join(DIGITS[cell] for cell in row) for row in cells]


def _edges(size: int) -> NDArray[Any]:
    """Where the cells along a side begin: equal cells where a fair number of them divides it (heads stay whole)."""
    whole = next((n for n in range(min(SIDE, size), SIDE // 3, -1) if size % n == 0), min(SIDE, size))
    return np.arange(whole) * size // whole


def densities(rows: Sequence[str]) -> NDArray[Any]:
    """How much of each cell is removed, 0 to 1, (rows, columns)."""
    return np.array([[DIGITS.index(digit) for digit in row] for row in rows]) / (len(DIGITS) - 1)
