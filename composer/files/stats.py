"""The CSV files under ``stats/``: written whole, one row per validation."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .jsonfile import write_text

COLUMNS = ("step", "epoch", "train_loss", "valid_loss", "train_seconds", "valid_seconds")
JOINT_COLUMNS = ("configuration", *COLUMNS)
BLOCK_COLUMNS = ("level", "path", "rates", "node", *COLUMNS)


def joint_rows(stats: Mapping[str, Any], roots: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of ``stats/joint.csv`` from what was recorded beside ``θ``: each configuration's losses over joint steps.

    Configurations get the numbers that they have in ``roots``, whatever they had when ``θ`` was learnt, and have no
    rows when they were not there then; seconds are those of all configurations together.
    """
    names, whole = stats.get("configurations", roots), {row["step"]: row for row in stats["mean"]}
    return [
        {**whole[row["step"]], "train_loss": None, **row, "configuration": i}
        for i, name in enumerate(roots)
        for row in stats["joint"]
        if name in names and row["configuration"] == names.index(name)
    ]


def curve_of(path: Path) -> list[list[float]]:
    """Seconds of training and validation loss of a run, row by row; a loss that was not finite is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["train_seconds"], row["valid_loss"]) for row in csv.DictReader(file)]
    return [[float(seconds), float(loss)] for seconds, loss in rows if loss]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> None:
    """Write rows; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row[name] for name in columns} for row in rows)
    write_text(path, text.getvalue())
