"""Norms of the columns of the targets' inputs, on a calibration sample: what criteria that look at data see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...models.folder import DEMO
from ...scheme.layout import Layout
from .bench import Bench
from .calibrations import opened
from .journal import Journal

if TYPE_CHECKING:
    from ...calibration.gram import Gram
    from ...calibration.sample import Calibration

TOP = 0.01
"""Share of the columns that are called the top ones."""
COLUMNS = ("target", "tokens", "min", "median", "max", "top_share")


def add_columns(bench: Bench, weights: Mapping[str, Any]) -> dict[str, Any] | None:
    """``weights`` with the norms under ``columns`` and their sample under ``sample``, written to ``weights.json``,
    and ``columns.csv``; None where no data was named.

    The sample is the data's own, else that of the first calibration set. No model is loaded where the journal has the
    norms.
    """
    measured = _own(bench) if _names_data(bench) else _first_set(bench) if bench.settings.calibrations else None
    if measured is None:
        return None
    content = {**weights, **measured}
    write_json(bench.folder / "weights.json", content)
    write_csv(bench.folder / "columns.csv", [{**row, **row["norms"]} for row in measured["columns"]], COLUMNS)
    return content


def columns_of(layout: Layout, calibration: Calibration) -> list[dict[str, Any]]:
    """Norms of the columns of each target's inputs on the calibration sample: ``sqrt(diag G)``.

    ``top_share`` is the part of the squared norm that the top hundredth of the columns holds (at least one column):
    1 % means that all are alike. Projections that read different inputs count together.
    """
    wants = {target.path: [p.path for p in target.projections] for target in layout.targets}
    return [_norms(path, list(grams.values())) for path, grams in calibration.moments(wants)]


def _norms(path: str, grams: Sequence[Gram]) -> dict[str, Any]:
    distinct = {id(gram): gram for gram in grams}.values()
    norms = np.concatenate([gram.norms.double().numpy() for gram in distinct])
    squares = np.sort(norms**2)[::-1]
    top = max(1, round(TOP * squares.size))
    top_part = float(squares[:top].sum() / squares.sum()) if squares.sum() else 0.0
    summary = {"min": float(norms.min()), "median": float(np.median(norms)), "max": float(norms.max())}
    return {"target": path, "tokens": max(g.tokens for g in distinct), "norms": {**summary, "top_share": top_part}}


def _names_data(bench: Bench) -> bool:
    return bool(bench.space.recipe.data) or bench.space.base.name == DEMO


def _own(bench: Bench) -> dict[str, Any]:
    name, sample = bench.space.recipe.data or DEMO, bench.space.examples("train")
    return _measured(bench, name, sample.digest, lambda: bench.pruner.calibration)


def _first_set(bench: Bench) -> dict[str, Any]:
    name = bench.settings.calibrations[0]
    with opened(bench, name) as space:
        sample, task = space.examples("train"), space.task
    return _measured(bench, name, sample.digest, lambda: bench.calibration_on(sample, task))


def _measured(bench: Bench, name: str, digest: str, calibration: Any) -> dict[str, Any]:
    recipe = bench.space.recipe
    inputs = {
        "base": bench.space.base.fingerprint,
        "targets": list(bench.paths),
        "sample": {"size": recipe.calibration_size, "seed": recipe.seed, "data": digest},
        "device": bench.space.device,
    }
    journal = Journal(bench.folder, "columns", inputs, force=bench.force)

    def make() -> dict[str, Any]:
        sample = calibration()
        return {"columns": columns_of(bench.layout.only(bench.paths), sample), "examples": len(sample)}

    row = journal.row(("columns",), make)
    return {"columns": row["columns"], "sample": {"data": name, "examples": row["examples"]}}
