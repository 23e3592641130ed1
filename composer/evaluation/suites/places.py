"""Where the files of the suites are: in a folder of the user's, under the names that data sets go by, or on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...tasks.data.formats import MISSING, Table, few
from ...tasks.data.options import DataOptions
from ...tasks.data.sources import FolderSource, Source, open_source


class MissingDataError(DataError):
    """There are no problems of a task where they were looked for."""


@dataclass(frozen=True)
class Place:
    """Where one task's problems can be.

    Attributes:
        task: for messages.
        folders: below the data folder; the first that is there counts.
        splits: names of the split (a file without its suffix), the first that is there counts.
        hub: ``name`` or ``name:configuration`` on the Hugging Face hub; None where it is not there.
    """

    task: str
    folders: tuple[str, ...]
    splits: tuple[str, ...]
    hub: str | None = None

    def find(self, data: Path | None, *, texts: bool = False) -> tuple[str, str]:
        """The folder or hub data set, and the name of the split in it.

        Args:
            data: the folder of the suites' files; None asks the hub.
            texts: whether files of running text count.

        Raises:
            MissingDataError: there is none, with what was looked for.
        """
        if data is None:
            return self._on_hub()
        for folder in (data / name for name in self.folders):
            there = FolderSource(folder, None, texts=texts).names() if folder.is_dir() else []
            if split := next((name for name in self.splits if name in there), None):
                return str(folder), split
        wanted = ", ".join(f"{folder}/{{{','.join(self.splits)}}}.*" for folder in self.folders)
        raise MissingDataError(f"{data}: no problems of {self.task}; looked for {wanted}")

    def table(self, data: Path | None, *, texts: bool = False) -> Table:
        """The table of the problems; as :meth:`find`."""
        place, split = self.find(data, texts=texts)
        return _source(place, texts=texts).read(split)

    def _on_hub(self) -> tuple[str, str]:
        if self.hub is None:
            raise MissingDataError(
                f"--suite-data: nothing given, and {self.task} has no place on the hub; name a folder with it"
            )
        try:
            source = open_source(DataOptions(data=self.hub))
        except DataError as bad:
            reason = bad.problems[0].partition("could not be loaded: ")[2] or bad.problems[0]
            raise MissingDataError(
                f"{self.task}: its data ({self.hub}) could not be had from the hub: {reason}; without a network name a "
                "folder that holds it with --suite-data"
            ) from bad
        there = source.names()
        if split := next((name for name in self.splits if name in there), None):
            return self.hub, split
        raise MissingDataError(f"{self.hub}: no split {' or '.join(self.splits)} of {self.task}; {source.listing()}")


def _source(place: str, *, texts: bool) -> Source:
    folder = Path(place)
    return FolderSource(folder, None, texts=texts) if folder.is_dir() else open_source(DataOptions(data=place))


def rows_of(table: Table, needed: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows as dictionaries of the columns that are needed, and of the optional ones where they are there.

    Raises:
        DataError: columns, or cells of theirs, that are missing.
    """
    if lost := [name for name in needed if name not in table.columns]:
        there = ", ".join(table.columns)
        raise DataError([f"{table.place}: no column {name!r}; columns: {there}" for name in lost])
    names = [*needed, *(name for name in optional if name in table.columns)]
    rows = [dict(zip(names, cells, strict=True)) for cells in zip(*(table.columns[n] for n in names), strict=True)]
    empty = [
        f"{table.at(i)}: {name!r} is missing"
        for i, row in enumerate(rows)
        for name in needed
        if row[name] is MISSING or row[name] is None
    ]
    if empty:
        raise DataError(few(empty))
    return [{name: value for name, value in row.items() if value is not MISSING} for row in rows]
