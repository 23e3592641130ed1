"""Splits: which table is train, validation or test, what is held out of train, and how many rows are used.

Validation rows are never training rows, and nothing is ever chosen by the test split: where the data has no
test split, evaluation uses validation and ``Rows.source`` says so.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import DataError, did_you_mean
from .formats import MISSING, Table
from .options import DataOptions
from .sources import Source, open_source
from .task import Split

Row = tuple[str, ...]
"""One example as text: (source, target), or (text, label name)."""

TRAIN = ("train",)
VALID = ("validation", "valid", "val", "dev")
HELD_OUT = 0.05
HELD_OUT_MOST = 2000


@dataclass(frozen=True)
class Rows:
    """The rows of one split, and in words where they come from."""

    rows: list[Row]
    source: str

    @property
    def digest(self) -> str:
        """sha256 over the rows, in order: one JSON array per line."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()


Pick = Callable[[Table], list[Row]]
"""What a task makes of a table: its rows as text. The caller drops those with an empty field."""


def read_split(options: DataOptions, split: Split, pick: Pick, *, parallel: bool = False) -> Rows:
    """Read one split, cut to the size that ``options`` ask for.

    Args:
        options: where the data is, sizes, seed.
        split: train, valid or test.
        pick: turns a table into rows of text, and says which columns it needs.
        parallel: whether pairs of text files (``train.en``, ``train.de``) count as a table.

    Raises:
        DataError: missing data or files, or what the readers and ``pick`` find wrong with them.
    """
    source = open_source(options, parallel=parallel)
    if split == "train":
        return _sample(_train_and_held_out(source, options, pick)[0], options.train_size, options.seed)
    if split == "valid":
        return _first(_valid(source, options, pick), options.valid_size)
    return _first(_test(source, options, pick), options.test_size)


def find_column(table: Table, asked: str | None, usual: tuple[str, ...], what: str) -> str | DataError:
    """Name of the column that holds ``what``: the one asked for, else the first usual one there is.

    The error is returned, so that a caller with several columns can report all of them.
    """
    wanted = (asked,) if asked is not None else usual
    for name in wanted:
        if name in table.columns:
            return name
    there = ", ".join(table.columns)
    hint = did_you_mean(wanted[0], table.columns) if asked is not None else f"; name it with {what}_column"
    looked_for = " or ".join(repr(name) for name in wanted)
    return DataError(f"{table.place}: no {what} column {looked_for}; columns: {there}{hint}")


def text_problem(table: Table, column: str, row: int) -> str | None:
    """What is wrong with a cell that has to hold text (null counts as empty text), or None."""
    value = table.columns[column][row]
    if value is None or isinstance(value, str):
        return None
    got = "missing" if value is MISSING else f"{type(value).__name__} {value!r}, expected is text"
    return f"{table.at(row)}: {column!r} is {got}"


def _read(source: Source, name: str, pick: Pick) -> Rows:
    table = source.read(name)
    picked = pick(table)
    rows = [row for row in picked if all(cell.strip() for cell in row)]
    if not rows:
        raise DataError(f"{table.place}: all {len(picked)} rows have an empty field")
    dropped = len(picked) - len(rows)
    return Rows(rows, table.source + (f"; {dropped} rows with an empty field left out" if dropped else ""))


def _find(source: Source, stems: tuple[str, ...]) -> str | None:
    found = [name for name in source.names() if name in stems]
    if len(found) > 1:
        raise DataError(f"{source.place}: several splits for validation: {', '.join(found)}; keep one")
    return found[0] if found else None


def _train_and_held_out(source: Source, options: DataOptions, pick: Pick) -> tuple[Rows, Rows | None]:
    name = _find(source, TRAIN)
    if name is None:
        looked_for = source.expected("train")
        raise DataError(f"{source.place}: no training data; looked for {looked_for}; {source.found()}")
    train = _read(source, name, pick)
    return (train, None) if _find(source, VALID) else _hold_out(train, options.seed)


def _hold_out(train: Rows, seed: int) -> tuple[Rows, Rows]:
    count = min(HELD_OUT_MOST, max(1, round(HELD_OUT * len(train.rows))))
    chosen = sorted(random.Random(seed).sample(range(len(train.rows)), count))
    held = [train.rows[i] for i in chosen]
    # Repeats of a held-out row would let training see it.
    seen = set(held)
    rest = [row for row in train.rows if row not in seen]
    if not rest:
        raise DataError(f"{train.source}: too few different rows to hold some out for validation")
    note = f"{count:,} rows held out for validation with seed {seed}"
    return Rows(rest, f"{train.source}; without {note}"), Rows(held, f"{train.source}; {note}")


def _valid(source: Source, options: DataOptions, pick: Pick) -> Rows:
    name = _find(source, VALID)
    if name is not None:
        return _read(source, name, pick)
    if _find(source, TRAIN) is None:
        looked_for = "; ".join(source.expected(stem) for stem in (*VALID, *TRAIN))
        raise DataError(
            f"{source.place}: no validation and no training data; looked for {looked_for}; {source.found()}"
        )
    held = _train_and_held_out(source, options, pick)[1]
    assert held is not None
    return held


def _test(source: Source, options: DataOptions, pick: Pick) -> Rows:
    names = source.names()
    wanted = options.test_split
    if wanted is not None:
        if wanted not in names:
            raise DataError(
                f"{source.place}: test_split {wanted!r} is not there; {source.found()}" + did_you_mean(wanted, names)
            )
        return _read(source, wanted, pick)
    tests = [name for name in names if name.startswith("test")]
    if tests:
        return _read(source, tests[0], pick)
    valid = _valid(source, options, pick)
    return replace(valid, source=f"{valid.source}; no test split, validation is used")


def _first(rows: Rows, size: int | None) -> Rows:
    if size is None or size >= len(rows.rows):
        return rows
    return Rows(rows.rows[:size], f"{rows.source}; first {size:,} of {len(rows.rows):,} rows")


def _sample(rows: Rows, size: int | None, seed: int) -> Rows:
    if size is None or size >= len(rows.rows):
        return rows
    order = list(range(len(rows.rows)))
    # A prefix of one permutation: a smaller sample lies inside every larger one.
    random.Random(seed).shuffle(order)
    kept = [rows.rows[i] for i in sorted(order[:size])]
    return Rows(kept, f"{rows.source}; {size:,} of {len(rows.rows):,} rows with seed {seed}")
