"""Splits: which table is train, validation or test, what is held out of train, and how many rows are used.

Validation rows are never training rows, and nothing is ever chosen by the test split: where the data has no
test split, evaluation uses validation and ``Rows.source`` says so. A split is a file (or a split of the hub)
called ``dev``, ``dev-v2.0`` or ``wiki.dev``. Of running text a folder's only file is the training data, whatever it
is called.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...errors import DataError, did_you_mean, shown
from ..task import Split
from .formats import MISSING, Table
from .options import DataOptions
from .sources import Source, open_source

Row = tuple[str, ...]
"""One example as text: (source, target), (text, label name), (text,), …"""

TRAIN = ("train",)
VALID = ("validation", "valid", "val", "dev")
TEST = ("test",)
HELD_OUT = 0.05
"""Share of the training rows that is held out where there is no validation split."""
HELD_OUT_MOST = 2000
"""Most rows that are held out."""


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
"""What a task makes of a table: its rows as text. The caller drops those with an empty field, unless it reads
running text."""


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
    whole = _read_whole(options, split, pick, parallel=parallel)
    kept, note = chosen(options, split, len(whole.rows), "rows")
    return Rows([whole.rows[i] for i in kept], whole.source + note) if note else whole


def read_running_text(options: DataOptions, split: Split, pick: Pick) -> Rows:
    """Read a whole split of texts that are one after the other, blank ones too; text files are read as well.

    Raises:
        DataError: as :func:`read_split`.
    """
    return _read_whole(options, split, pick, texts=True)


def chosen(options: DataOptions, split: Split, count: int, what: str) -> tuple[list[int], str]:
    """Which of ``count`` examples are used, in order, and a note that says so where it is not all of them."""
    size = {"train": options.train_size, "valid": options.valid_size, "test": options.test_size}[split]
    order = list(range(count))
    if size is None or size >= count:
        return order, ""
    if split != "train":
        return order[:size], f"; first {size:,} of {count:,} {what}"
    # A prefix of one permutation: a smaller sample lies inside every larger one.
    random.Random(options.seed).shuffle(order)
    return sorted(order[:size]), f"; {size:,} of {count:,} {what} with seed {options.seed}"


def _read_whole(options: DataOptions, split: Split, pick: Pick, *, parallel: bool = False, texts: bool = False) -> Rows:
    source = open_source(options, parallel=parallel, texts=texts)
    read = _Reader(source, options, pick, texts)
    return {"train": read.train, "valid": read.valid, "test": read.test}[split]()


def find_column(table: Table, asked: str | None, usual: tuple[str, ...], what: str) -> str | DataError:
    """Name of the column that holds ``what``: the one asked for, else the first usual one there is.

    The error is returned, so that a caller with several columns can report all of them.
    """
    names = (asked,) if asked is not None else usual
    for name in names:
        if name in table.columns:
            return name
    there = ", ".join(table.columns)
    option = f"{what}_column"
    hint = f"; name it with {option}" if option in DataOptions.model_fields else ""
    if asked is not None:
        hint = did_you_mean(asked, table.columns)
    looked_for = " or ".join(repr(name) for name in names)
    return DataError(f"{table.place}: no {what} column {looked_for}; columns: {there}{hint}")


def text_problem(table: Table, column: str, row: int) -> str | None:
    """What is wrong with a cell that has to hold text (null counts as empty text), or None."""
    value = table.columns[column][row]
    if value is None or isinstance(value, str):
        return None
    got = "missing" if value is MISSING else f"{type(value).__name__} {shown(value)}, expected is text"
    return f"{table.at(row)}: {column!r} is {got}"


@dataclass(frozen=True)
class _Reader:
    """The three splits of a source."""

    source: Source
    options: DataOptions
    pick: Pick
    texts: bool

    def train(self) -> Rows:
        """Training rows, without those that are held out."""
        return self._train_and_held_out()[0]

    def valid(self) -> Rows:
        """The validation split, or what is held out of train."""
        if name := self._valid_name():
            return self._read(name)
        if self._train_name() is None:
            looked_for = "; ".join(self.source.expected(stem) for stem in (*VALID, *TRAIN))
            raise self._problem(f"no validation and no training data; looked for {looked_for}; {self.source.listing()}")
        held_out = self._train_and_held_out()[1]
        assert held_out is not None
        return held_out

    def test(self) -> Rows:
        """The test split; without one, validation."""
        if self.options.test_split is not None:
            return self._read(self._asked("test_split", self.options.test_split))
        names = self.source.names()
        tests = [name for name in names if name.startswith(TEST)] or _named(names, TEST)
        if tests:
            return self._read(tests[0])
        valid = self.valid()
        return replace(valid, source=f"{valid.source}; no test split, validation is used")

    def _train_and_held_out(self) -> tuple[Rows, Rows | None]:
        name = self._train_name()
        if name is None:
            looked_for = self.source.expected("train")
            raise self._problem(f"no training data; looked for {looked_for}; {self.source.listing()}")
        train = self._read(name)
        return (train, None) if self._valid_name() else _hold_out(train, self.options.seed)

    def _train_name(self) -> str | None:
        names = self.source.names()
        if self.texts and len(names) == 1 and not _named(names, (*VALID, *TEST)):
            return names[0]
        return self._one(_named(names, TRAIN), "training", "keep one")

    def _valid_name(self) -> str | None:
        if self.options.valid_split is not None:
            return self._asked("valid_split", self.options.valid_split)
        return self._one(_named(self.source.names(), VALID), "validation", "keep one, or name it with valid_split")

    def _one(self, names: list[str], what: str, advice: str) -> str | None:
        if len(names) > 1:
            raise self._problem(f"several splits for {what}: {', '.join(names)}; {advice}")
        return names[0] if names else None

    def _asked(self, field: str, name: str) -> str:
        names = self.source.names()
        if name not in names:
            raise self._problem(f"{field} {name!r} is not there; {self.source.listing()}{did_you_mean(name, names)}")
        return name

    def _problem(self, text: str) -> DataError:
        return DataError(f"{self.source.place}: {text}")

    def _read(self, name: str) -> Rows:
        table = self.source.read(name)
        picked = self.pick(table)
        rows = [row for row in picked if all(cell.strip() for cell in row)]
        if not rows:
            raise DataError(f"{table.place}: all {len(picked)} rows have an empty field")
        dropped = 0 if self.texts else len(picked) - len(rows)
        note = f"; {dropped} rows with an empty field left out" if dropped else ""
        return Rows(picked if self.texts else rows, table.source + note)


def _named(names: list[str], stems: tuple[str, ...]) -> list[str]:
    """Names that are one of ``stems``; else those that begin with one: ``dev-v2.0``, ``wiki.valid``.

    >>> _named(["dev", "dev-v2.0"], VALID), _named(["dev-v2.0", "devices", "wiki.valid"], VALID)
    (['dev'], ['dev-v2.0', 'wiki.valid'])
    """
    exact = [name for name in names if name in stems]
    pattern = re.compile(rf"(wiki\.)?({'|'.join(stems)})([^A-Za-z0-9].*)?")
    return exact or [name for name in names if pattern.fullmatch(name)]


def _hold_out(train: Rows, seed: int) -> tuple[Rows, Rows]:
    """Training rows without a drawn twentieth (at most 2,000), and those; blank rows are not drawn."""
    candidates = [i for i, row in enumerate(train.rows) if any(cell.strip() for cell in row)]
    count = min(HELD_OUT_MOST, max(1, round(HELD_OUT * len(candidates))))
    drawn = sorted(random.Random(seed).sample(candidates, count))
    held_out = [train.rows[i] for i in drawn]
    # Repeats of a held-out row would let training see it.
    seen = set(held_out)
    rest = [row for row in train.rows if row not in seen]
    if not any(cell.strip() for row in rest for cell in row):
        raise DataError(f"{train.source}: too few different rows to hold some out for validation")
    note = f"{count:,} rows held out for validation with seed {seed}"
    return Rows(rest, f"{train.source}; without {note}"), Rows(held_out, f"{train.source}; {note}")
