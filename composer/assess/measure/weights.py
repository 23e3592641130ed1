"""How large the weights are: histograms, the share below any cutoff, outliers.

Weights are streamed from safetensors, target by target; a target's matrices are in memory, never the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files.jsonfile import write_json
from ...files.records import record
from ...files.stats import write_csv
from ...models.folder import BaseModel
from ...progress import SILENT, Progress
from ...scheme.layout import Target
from .stored_weights import Weights, layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_DECADE = 10
LOWEST, HIGHEST = -9, 7
"""Powers of ten between which the bins lie while counting; what holds next to nothing is cut off afterwards."""
NEGLIGIBLE = 1e-3
"""Share of all weights that the first bin, which begins at 0, may hold besides exact zeros."""
OUTLIER = 6.0
"""Standard deviations from which a weight is an outlier."""
QUANTILES = (0.01, 0.5, 0.99)
PIECE = 1 << 22

COLUMNS: tuple[str, ...] = (
    "target",
    "kind",
    "layer",
    "part",
    "rows",
    "columns",
    "count",
    "zeros",
    "mean",
    "std",
    "max_abs",
)
COLUMNS += (*(f"quantile_{q:g}" for q in QUANTILES), "outliers")


def assess_weights(
    base: BaseModel,
    folder: Path,
    paths: Sequence[str] | None = None,
    *,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write ``weights.json`` and ``weights.csv`` into ``folder``; returns what the first one holds.

    Args:
        paths: the targets that are looked at; None takes all.
        provenance: the record kept in the file; None makes one.

    Raises:
        ModelError: no safetensors, a tensor missing, misshapen or not finite.
    """
    found = weights_of(base, base.layout.paths if paths is None else paths, progress)
    content = {
        "what": "weights",
        "model": base.name,
        "no_targets": base.no_targets,
        "provenance": dict(provenance or record({"model": base.name})),
        **found,
        "columns": None,
    }
    write_json(folder / "weights.json", content)
    write_csv(folder / "weights.csv", [_row(row) for row in content["targets"]], COLUMNS)
    return content


def weights_of(base: BaseModel, paths: Sequence[str], progress: Progress = SILENT) -> dict[str, Any]:
    """Edges of the bins, figures and counts of these targets, and the curve of cutoffs."""
    places = layers(base.layout)
    rows: list[dict[str, Any]] = []
    with Weights(base) as weights, progress.bar("weights", len(paths)) as bar:
        for target in map(base.layout.target, paths):
            rows.append(_target(target, *places[target.path], weights.of(target)))
            bar.advance(target.path)
    grid = _grid()
    counts = np.array([row["counts"] for row in rows])
    first, last = _span(counts.sum(0), sum(row["zeros"] for row in rows))
    for row, own in zip(rows, counts, strict=True):
        row["counts"] = [int(own[: first + 1].sum()), *map(int, own[first + 1 : last + 1])]
    edges = [0.0, *(float(edge) for edge in grid[first + 1 : last + 2])]
    return {"edges": edges, "targets": rows, "cutoffs": list(_cutoffs(edges, rows))}


def _grid() -> NDArray[Any]:
    """All edges while counting: float32 numbers of which only the upper half of the bits is not 0."""
    steps = PER_DECADE * (HIGHEST - LOWEST) + 1
    edges = np.concatenate([[0.0], np.logspace(LOWEST, HIGHEST, steps)]).astype(np.float32)
    return (edges.view(np.uint32) >> 16 << 16).view(np.float32)


def _histogram(values: NDArray[Any], grid: NDArray[Any]) -> NDArray[Any]:
    """How many of ``values`` (float32, not negative) lie in each bin [low, high); the last one has no upper end.

    The bits of such numbers are in the order of the numbers, so the upper halves are counted, and summed from edge to
    edge: exact, and several times as quick as looking every value up.
    """
    fine = np.zeros(1 << 15, dtype=np.int64)
    for piece in _pieces(values):
        fine += np.bincount(piece.view(np.uint32) >> 16, minlength=len(fine))
    return np.asarray(np.add.reduceat(fine, grid[:-1].view(np.uint32) >> 16))


def _target(target: Target, layer: str, part: str, matrices: Sequence[NDArray[Any]]) -> dict[str, Any]:
    values = np.concatenate([matrix.reshape(-1) for matrix in matrices])
    sums = np.zeros(2)
    for piece in _pieces(values):
        sums += piece.sum(dtype=np.float64), np.square(piece, dtype=np.float64).sum()
    mean = sums[0] / values.size
    deviation = float(np.sqrt(max(sums[1] / values.size - mean**2, 0.0)))
    values = np.abs(values)
    return {
        "target": target.path,
        "kind": target.kind,
        "layer": layer,
        "part": part,
        "shape": [sum(len(matrix) for matrix in matrices), matrices[0].shape[1]],
        "count": int(values.size),
        "zeros": int(values.size - np.count_nonzero(values)),
        "mean": float(mean),
        "std": deviation,
        "max_abs": float(values.max()),
        "quantiles": {f"{q:g}": float(x) for q, x in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)},
        "outliers": int(np.count_nonzero(values > OUTLIER * deviation)),
        "counts": _histogram(values, _grid()),
    }


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of so many values that intermediate results stay small."""
    return (values[i : i + PIECE] for i in range(0, values.size, PIECE))


def _span(counts: NDArray[Any], zeros: int) -> tuple[int, int]:
    """First and last bin worth keeping: what lies below the first goes into it."""
    few = np.flatnonzero(counts.cumsum() - zeros <= NEGLIGIBLE * counts.sum())
    last = int(np.flatnonzero(counts)[-1])
    return min(int(few[-1]) if few.size else 0, last), last


def _cutoffs(edges: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The share of weights below every edge: exact, because nothing is counted twice."""
    kinds = {"all": rows, **{k: [r for r in rows if r["kind"] == k] for k in dict.fromkeys(r["kind"] for r in rows)}}
    below = {kind: np.sum([row["counts"] for row in some], 0).cumsum() for kind, some in kinds.items()}
    for i, edge in enumerate(edges[1:]):
        yield {"cutoff": edge, "share_below": {kind: float(sums[i] / sums[-1]) for kind, sums in below.items()}}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    shape = dict(zip(("rows", "columns"), row["shape"], strict=True))
    quantiles = {f"quantile_{q}": value for q, value in row["quantiles"].items()}
    return {name: value for name, value in {**row, **shape, **quantiles}.items() if name in COLUMNS}
