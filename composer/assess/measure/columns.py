"""Norms of the columns of the targets' inputs, on a calibration sample: what criteria that look at data see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files.journal import Journal
from ...files.jsonfile import write_json
from ...files.stats import write_csv
from ...models.folder import DEMO
from ...scheme.layout import Layout
from .assessed_model import AssessedModel
from .calibrations import opened

if TYPE_CHECKING:
    from ...calibration.gram import Gram
    from ...calibration.sample import Calibration

TOP = 0.01
"""Share of the columns that are called the top ones."""
COLUMNS = ("target", "tokens", "min", "median", "max", "top_share")


def add_columns(subject: AssessedModel, weights: Mapping[str, Any]) -> dict[str, Any] | None:
    """``weights`` with the norms under ``columns`` and their sample under ``sample``, written to ``weights.json``,
    and ``columns.csv``; None where no data was named.

    The sample is the data's own, else that of the first calibration set. No model is loaded where the journal has the
    norms.
    """
    measured = _own(subject) if subject.has_data else _first_set(subject) if subject.settings.calibrations else None
    if measured is None:
        return None
    content = {**weights, **measured}
    write_json(subject.folder / "weights.json", content)
    write_csv(subject.folder / "columns.csv", [{**row, **row["norms"]} for row in measured["columns"]], COLUMNS)
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


def _own(subject: AssessedModel) -> dict[str, Any]:
    name, sample = subject.space.recipe.data or DEMO, subject.space.examples("train")
    return _measured(subject, name, sample.digest, lambda: subject.pruner.calibration)


def _first_set(subject: AssessedModel) -> dict[str, Any]:
    name = subject.settings.calibrations[0]
    with opened(subject, name) as space:
        sample, task = space.examples("train"), space.task
    return _measured(subject, name, sample.digest, lambda: subject.calibration_on(sample, task))


def _measured(subject: AssessedModel, name: str, digest: str, calibration: Any) -> dict[str, Any]:
    recipe = subject.space.recipe
    inputs = {
        "base": subject.space.base.fingerprint,
        "targets": list(subject.paths),
        "sample": {"size": recipe.calibration_size, "seed": recipe.seed, "data": digest},
        "device": subject.space.device,
    }
    journal = Journal(subject.folder, "columns", inputs, force=subject.force)

    def make() -> dict[str, Any]:
        sample = calibration()
        return {"columns": columns_of(subject.layout.only(subject.paths), sample), "examples": len(sample)}

    row = journal.row(("columns",), make)
    return {"columns": row["columns"], "sample": {"data": name, "examples": row["examples"]}}
