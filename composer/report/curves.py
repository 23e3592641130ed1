"""Reading ``stats/*.csv``: the losses of a run, of every block, or of every configuration of the joint phase."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import DataError
from ..files.jsonfile import read_text
from ..files.stats import BLOCK_COLUMNS, COLUMNS, JOINT_COLUMNS

KINDS: dict[tuple[str, ...], StatsKind] = {COLUMNS: "run", BLOCK_COLUMNS: "blocks", JOINT_COLUMNS: "joint"}
SHOWN = 5  # problems of one file that are listed one by one

Kind = Literal["composed", "baseline", "dense", "joint", "other"]
StatsKind = Literal["run", "blocks", "joint"]
SIDES: dict[str, Kind] = {"model": "composed", "baseline": "baseline", "joint": "joint"}


@dataclass(frozen=True)
class Point:
    """One row; a loss that was not measured is None, one that is not finite is a diverged run's."""

    step: int
    train_loss: float | None
    valid_loss: float | None
    train_seconds: float | None


@dataclass(frozen=True)
class Curve:
    """The rows of one run, of one block (then ``level`` is set), or of one configuration of the joint phase."""

    name: str
    points: tuple[Point, ...]
    level: str = ""

    @property
    def kind(self) -> Kind:
        """Which side the run belongs to, by its file's name."""
        return _identity(self.name)[0]

    @property
    def configuration(self) -> int | None:
        """The configuration it belongs to, by its file's name."""
        return _identity(self.name)[1]

    @property
    def label(self) -> str:
        """A short name for legends.

        >>> Curve("model-2", ()).label, Curve("baseline-0", ()).label, Curve("dense", ()).label
        ('2 composed', '0 baseline', 'dense')
        """
        kind, number, rest = _identity(self.name)
        return self.name.lstrip("_") if number is None else f"{number} {kind}{rest}"

    def line(self, loss: str, x: str) -> tuple[list[float], list[float]]:
        """Points where ``x`` (step or train_seconds) and ``loss`` are known; what is not finite is a gap."""
        pairs = [(getattr(p, x), getattr(p, loss)) for p in self.points]
        known = [(float(a), b if math.isfinite(b) else math.nan) for a, b in pairs if None not in (a, b)]
        return [a for a, _ in known], [b for _, b in known]


@dataclass(frozen=True)
class Stats:
    """What one file holds: a single run, the blocks of the block phase, or the configurations of the joint phase."""

    path: Path
    curves: tuple[Curve, ...]
    kind: StatsKind


def read_all(paths: Sequence[Path]) -> list[Stats]:
    """Read every file; all problems of all files are reported at once."""
    found: list[Stats] = []
    problems: list[str] = []
    for path in paths:
        try:
            found.append(read_stats(path, may_be_empty=True))
        except DataError as bad:
            problems += bad.problems
    some = any(stats.curves for stats in found)
    # A table of blocks is empty where no block had to learn; beside others it need not be left out.
    problems += [_no_rows(s.path) for s in found if not s.curves and not (some and s.kind == "blocks")]
    if problems:
        raise DataError(problems)
    return found


def read_stats(path: Path, *, may_be_empty: bool = False) -> Stats:
    """Read one stats file.

    Raises:
        DataError: missing, empty or malformed; one line per problem with file, line and column.
    """
    rows = _rows(path, read_text(path, DataError))
    header = next(rows, (0, []))[1]
    if not header:
        raise DataError(f"{path}: is empty; needed: a header line {','.join(COLUMNS)} and rows below it")
    kind = KINDS.get(tuple(header))
    if kind is None:
        raise DataError(
            f"{path}: line 1: the columns are {','.join(header)!r}; needed: {','.join(COLUMNS)} "
            f"(with {_front(BLOCK_COLUMNS)} in front in block.csv, {_front(JOINT_COLUMNS)} in joint.csv)"
        )
    problems: list[str] = []
    points: dict[tuple[str, str], list[Point]] = {}
    for line, fields in rows:
        if len(fields) != len(header):
            problems.append(f"{path}: line {line}: {len(fields)} fields; the header has {len(header)}")
            continue
        row = dict(zip(header, fields, strict=True))
        if kind == "joint" and not row["configuration"].isdecimal():
            got = row["configuration"]
            problems.append(f"{path}: line {line}, column configuration: got {got!r}; needed: its number, from 0")
            continue
        before = points.setdefault(_place(row, kind, path), [])
        point = _point(row, f"{path}: line {line}", before, problems)
        if point is not None:
            before.append(point)
    if not points and not problems and not may_be_empty:
        problems.append(_no_rows(path))
    if problems:
        more = len(problems) - SHOWN
        raise DataError(problems[:SHOWN] + ([f"{path}: and {more} more problems"] if more > 0 else []))
    curves = tuple(Curve(name, tuple(p), level) for (level, name), p in points.items())
    return Stats(path, curves, kind)


def _no_rows(path: Path) -> str:
    return f"{path}: line 2: no rows after the header; needed: at least the row of step 0"


def _front(columns: Sequence[str]) -> str:
    return ",".join(columns[: -len(COLUMNS)])


def _place(row: dict[str, str], kind: StatsKind, path: Path) -> tuple[str, str]:
    """Level and name of the curve that a row belongs to."""
    if kind == "blocks":
        return row["level"], row["node"]
    return "", f"{path.stem}-{row['configuration']}" if kind == "joint" else path.stem


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not blank."""
    reader = csv.reader(text.removeprefix("\ufeff").splitlines(keepends=True), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as bad:
        raise DataError(f"{path}: line {reader.line_num}: not valid CSV: {bad}") from None


def _point(row: dict[str, str], where: str, before: list[Point], problems: list[str]) -> Point | None:
    """The row as a point, or None after naming what is wrong with it."""
    found = len(problems)
    values: dict[str, float | None] = {}
    for column in COLUMNS:
        try:
            values[column] = float(row[column]) if row[column].strip() else None
        except ValueError:
            problems.append(
                f"{where}, column {column}: got {row[column]!r}; needed: a number, or nothing if not measured"
            )
    if len(problems) > found:
        return None
    step = values["step"]
    if step is None or not math.isfinite(step) or step < 0 or step != int(step):
        problems.append(f"{where}, column step: got {row['step']!r}; needed: a whole number from 0")
        return None
    if before and step <= before[-1].step:
        last = before[-1].step
        problems.append(f"{where}, column step: got {int(step)} after {last}; steps must increase")
        return None
    return Point(int(step), values["train_loss"], values["valid_loss"], values["train_seconds"])


def _identity(name: str) -> tuple[Kind, int | None, str]:
    match = re.fullmatch(r"(model|baseline|joint)-(\d+)(.*)", name)
    if match:
        return SIDES[match[1]], int(match[2]), match[3].replace("-", " ")
    return ("dense" if name.startswith("dense") else "other"), None, ""
