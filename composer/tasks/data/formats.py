"""File formats: bytes to a :class:`Table` of named columns. Every mistake names its file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError

MISSING = object()
"""Value of a cell whose JSON row has no such key (a key with null holds None)."""

Header = tuple[list[str], Iterable[tuple[int, list[str]]]]


@dataclass(frozen=True)
class Table:
    """Named columns of equal length.

    Attributes:
        place: the file or dataset, for messages.
        source: the same without its folder, for records.
        columns: name -> values, in the order of the rows.
        lines: number of each row for messages: the line in a text file, else 1, 2, ...
        label_names: column -> class names, where the dataset itself says what its integers mean.
    """

    place: str
    source: str
    columns: dict[str, list[Any]]
    lines: Sequence[int]
    label_names: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def at(self, row: int) -> str:
        """Where row ``row`` (from 0) stands: ``train.tsv:17``."""
        return f"{self.place}:{self.lines[row]}"


def joined(tables: Sequence[Table], place: str, source: str) -> Table:
    """Tables one after the other, with the columns of all; what one lacks is :data:`MISSING` there."""
    names = dict.fromkeys(name for table in tables for name in table.columns)
    columns = {
        name: [cell for table in tables for cell in table.columns.get(name, [MISSING] * len(table))] for name in names
    }
    labels = {name: said for table in tables for name, said in table.label_names.items()}
    return Table(place, source, columns, range(1, sum(map(len, tables)) + 1), labels)


def few(problems: Sequence[str], most: int = 5) -> list[str]:
    """The first ``most`` problems, and a line that counts the others.

    >>> few(["a", "b", "c"], most=2)
    ['a', 'b', '(1 more like these)']
    """
    rest = len(problems) - most
    return [*problems[:most], f"({rest} more like these)"] if rest > 0 else list(problems)


def read_text(path: Path) -> str:
    """The file's text; a byte order mark is dropped. ``DataError``: not readable, empty, not UTF-8."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8; "
            "save the file as UTF-8"
        ) from error


def read_lines(path: Path) -> list[str]:
    r"""Lines of a text file, split on ``\n`` only: texts may hold other Unicode line separators.

    A ``\r`` before the ``\n`` goes. Raises ``DataError`` as :func:`read_text` does.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_parallel(paths: dict[str, Path]) -> Table:
    """Text files with one sentence a line, line by line the same sentence: language -> file."""
    columns = {language: read_lines(path) for language, path in paths.items()}
    counts = {str(paths[language]): len(lines) for language, lines in columns.items()}
    if len(set(counts.values())) > 1:
        numbers = ", ".join(f"{path} has {count}" for path, count in counts.items())
        raise DataError(f"parallel files need equal numbers of lines; {numbers}")
    rows = next(iter(counts.values()))
    return Table(" + ".join(counts), " + ".join(path.name for path in paths.values()), columns, range(1, rows + 1))


def _tsv(path: Path) -> Header:
    # No quoting: sentences hold bare double quotes, and csv.QUOTE_NONE would still break at a lone "\r".
    lines = read_lines(path)
    return lines[0].split("\t"), ((n, line.split("\t")) for n, line in enumerate(lines[1:], 2) if line)


def _csv(path: Path) -> Header:
    text = read_text(path)
    limit = csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error})") from error
    finally:
        csv.field_size_limit(limit)
    return rows[0][1], rows[1:]


def _read_separated(path: Path, split: Callable[[Path], Header]) -> Table:
    header, body = split(path)
    if len(header) == 1 and (other := next((mark for mark in ";\t|," if mark in header[0]), None)):
        wanted = "tabs" if path.suffix == ".tsv" else "commas"
        raise DataError(f"{path}:1: columns are parted by {wanted}, and here by {other!r}: {header[0]!r}")
    if len(set(header)) < len(header):
        raise DataError(f"{path}:1: a column is named twice: {', '.join(header)}")
    rows = list(body)
    ragged = [
        f"{path}:{n}: got {len(row)} columns, want {len(header)} ({', '.join(header)})"
        for n, row in rows
        if len(row) != len(header)
    ]
    if ragged:
        raise DataError(few(ragged))
    if not rows:
        raise DataError(f"{path}: a header and no rows")
    columns = {name: [row[i] for _, row in rows] for i, name in enumerate(header)}
    return Table(str(path), path.name, columns, [n for n, _ in rows])


def read_tsv(path: Path) -> Table:
    """Tab-separated values with a header line and no quoting."""
    return _read_separated(path, _tsv)


def read_csv(path: Path) -> Table:
    """Comma-separated values with a header line and ordinary double-quote quoting."""
    return _read_separated(path, _csv)


def _json_object(path: Path, number: int, line: str) -> dict[str, Any] | str:
    try:
        value = json.loads(line)
    except ValueError as error:
        return f"{path}:{number}: does not parse as JSON ({error}); one object per line is expected"
    if isinstance(value, dict):
        return value
    return f"{path}:{number}: is a JSON {type(value).__name__}; one object per line is expected"


def read_jsonl(path: Path) -> Table:
    """One JSON object per line; the columns are all keys that occur."""
    numbered = [(n, line) for n, line in enumerate(read_lines(path), 1) if line.strip()]
    parsed = [_json_object(path, n, line) for n, line in numbered]
    problems = [value for value in parsed if isinstance(value, str)]
    if problems:
        raise DataError(few(problems))
    rows = [value for value in parsed if isinstance(value, dict)]
    return _of_objects(path, rows, [n for n, _ in numbered])


def read_json(path: Path) -> Table:
    """One JSON list of objects (rows), one object (a single row), or one object per line."""
    try:
        value = json.loads(read_text(path))
    except ValueError:
        return read_jsonl(path)
    if _is_by_columns(value):
        raise DataError(
            f"{path}: an object of columns ({', '.join(value)}), as pandas writes them where nothing is said; rows are "
            "expected: save it with to_json(..., orient='records')"
        )
    rows = value if isinstance(value, list) else [value]
    wrong = [i for i, row in enumerate(rows, 1) if not isinstance(row, dict)]
    if wrong or not rows:
        got = f"row {wrong[0]} is {type(rows[wrong[0] - 1]).__name__}" if wrong else "an empty list"
        raise DataError(f"{path}: got {got}; a list of objects, or one object per line, is expected")
    return _of_objects(path, rows, range(1, len(rows) + 1))


def _is_by_columns(value: Any) -> bool:
    """Whether each key holds an object with the rows' numbers as keys."""
    columns = list(value.values()) if isinstance(value, dict) else []
    return bool(columns) and all(isinstance(one, dict) and one and all(key.isdigit() for key in one) for one in columns)


def _of_objects(path: Path, rows: Sequence[dict[str, Any]], lines: Sequence[int]) -> Table:
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name, MISSING) for row in rows] for name in names}
    return Table(str(path), path.name, columns, lines)


def read_running_text(path: Path) -> Table:
    r"""Running text, one row per line in the column ``text``, as the hub's WikiText datasets have it.

    A line keeps its ``\n``, a blank one is the empty text.
    """
    rows = [f"{line}\n" if line.strip() else "" for line in read_lines(path)]
    return Table(str(path), path.name, {"text": rows}, range(1, len(rows) + 1))


def read_parquet(path: Path) -> Table:
    """A parquet file, through pyarrow."""
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from error
    rows = len(next(iter(columns.values()), []))
    if not rows:
        raise DataError(f"{path}: no rows")
    return Table(str(path), path.name, columns, range(1, rows + 1))


READERS: dict[str, Callable[[Path], Table]] = {
    ".tsv": read_tsv,
    ".csv": read_csv,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
}
"""File suffix -> reader of a table."""

TEXT_READERS: dict[str, Callable[[Path], Table]] = dict.fromkeys((".txt", ".raw", ".tokens"), read_running_text)
"""The same for running text, where a task is about that."""
