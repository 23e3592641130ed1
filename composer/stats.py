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


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> None:
    """Write rows; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row[name] for name in columns} for row in rows)
    write_text(path, text.getvalue())
