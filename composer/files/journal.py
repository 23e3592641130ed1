"""Finished rows of a long measurement, kept as they come: a repeated command goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .atomic import disk_errors
from .jsonfile import canonical, digest_of

FOLDER = ".journal"


class Journal:
    """Rows by key, one JSON line each, in a file whose name is the digest of everything that shapes them.

    A line that a killed process left half written is not counted; it is cut off before the next one.
    """

    def __init__(self, folder: Path, part: str, inputs: Mapping[str, Any], *, force: bool = False) -> None:
        """Read the rows that an earlier run has kept.

        Args:
            folder: of the results; the file lies in ``.journal`` inside.
            inputs: fingerprint of the model, digests of the data, settings.
            force: forget what is there.
        """
        self.path = folder / FOLDER / f"{part}-{digest_of(dict(inputs))[:16]}.jsonl"
        if force:
            self.path.unlink(missing_ok=True)
        self._rows = self._read()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: tuple[Any, ...]) -> dict[str, Any]:
        return self._rows[canonical(key)]

    def holds(self, *key: Any) -> bool:
        """Whether the row of this key is there."""
        return canonical(key) in self._rows

    def row(self, key: tuple[Any, ...], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The row of this key; it is made, and kept, where it is not there."""
        name = canonical(key)
        if name not in self._rows:
            row = dict(make())
            self._append({"key": list(key), "row": row})
            self._rows[name] = row
        return self._rows[name]

    def remove(self) -> None:
        """Forget the rows, and their file: what they were kept for is finished."""
        self._rows.clear()
        with disk_errors(self.path):
            self.path.unlink(missing_ok=True)
            if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
                self.path.parent.rmdir()

    def _append(self, line: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(canonical(line) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self.path.is_file():
            return {}
        found, whole = {}, 0
        content = self.path.read_bytes()
        for line in content.splitlines(keepends=True):
            try:
                held = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            found[canonical(held["key"])] = held["row"]
            whole += len(line)
        if whole < len(content):
            with self.path.open("rb+") as file:
                file.truncate(whole)
        return found
