"""What `compose speed` measured, typed: from the runs over the table and the picture to a model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..files.jsonfile import read_json, write_json
from .statistics import Ratio, Spread

Part = Literal["forward", "prompt", "new tokens"]
"""A whole pass; what generation does up to its first new token; one more new token of each text."""


@dataclass(frozen=True)
class Timed:
    """A model in a runtime.

    Attributes:
        bytes: of its weights on disk, or of the files of an export.
        parameters: as they are on disk; None for an export.
        peak_bytes: what a process that loads it and runs the largest batch needs beside one that only imports the
            runtime; on a GPU the peak of its memory. None where it was not measured.
    """

    name: str
    runtime: str
    fingerprint: str
    bytes: int
    parameters: int | None = None
    peak_bytes: int | None = None

    @property
    def label(self) -> str:
        """How tables and pictures call it."""
        return self.name if self.runtime == "torch" else f"{self.name} ({self.runtime})"


@dataclass(frozen=True)
class Row:
    """One model on one shape of input.

    Attributes:
        entry: which of :attr:`Speed.entries`.
        wall: seconds by the clock on the wall; of one new token of each text where ``part`` says so.
        processor: seconds of all processors together.
        tokens_per_second: read, or made, in a second.
        macs: multiply-accumulates of the pass; None where nobody can count them.
        faster: against the first entry, in pairs; None for the first itself.
        macs_ratio: the first entry's MACs over its own.
        why: a sentence on the two.
    """

    entry: int
    part: Part
    batch_size: int
    length: int
    wall: Spread
    processor: Spread
    tokens_per_second: float
    macs: int | None = None
    faster: Ratio | None = None
    macs_ratio: float | None = None
    why: str = ""


@dataclass(frozen=True)
class LayerRow:
    """One kind of matrix on one shape of input: dense, and as it is in the model.

    ``path`` is the first of the ``count`` matrices of these shapes, ``sparsity`` the mean over them.
    ``kind`` says what the second figure is of: ``masked`` (zeros multiplied), ``2:4`` (the GPU's sparse kernel) or
    ``smaller`` (rows and columns gone).
    """

    path: str
    count: int
    dense_shape: tuple[int, int]
    shape: tuple[int, int]
    sparsity: float
    kind: str
    dense: Spread
    own: Spread
    faster: Ratio


@dataclass(frozen=True)
class Speed:
    """All that was measured in one run, with what must be known to repeat it.

    ``clock`` names the seconds that ratios are of: the processor's for one thread (other programs do not count), else
    those on the wall.
    """

    device: str
    threads: int
    clock: Literal["wall", "processor"]
    rounds: int
    new_tokens: int
    entries: tuple[Timed, ...]
    rows: tuple[Row, ...]
    layers: tuple[LayerRow, ...] = ()
    layers_note: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> Iterator[tuple[tuple[Part, int, int], list[Row]]]:
        """Rows that were measured in turn, by part, batch size and length."""
        for key in dict.fromkeys((row.part, row.batch_size, row.length) for row in self.rows):
            yield key, [row for row in self.rows if (row.part, row.batch_size, row.length) == key]

    def seconds(self, row: Row) -> Spread:
        """Of the clock that ratios are of."""
        return row.wall if self.clock == "wall" else row.processor

    def of(self, fingerprint: str) -> Speed | None:
        """The part about one model and what it was compared with, for its card; None where it was not measured."""
        own = {i for i, entry in enumerate(self.entries) if entry.fingerprint == fingerprint}
        return replace(self, rows=tuple(r for r in self.rows if r.entry in own or r.entry == 0)) if own else None

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """To a file that :meth:`read` reads."""
        write_json(path, self.plain())

    @classmethod
    def read(cls, path: Path) -> Speed:
        """From a file.

        Raises:
            InputError: it is none of ours.
        """
        try:
            return cls.of_plain(read_json(path, InputError))
        except (TypeError, KeyError, AttributeError) as bad:
            raise InputError(f"{path}: not written by `compose speed`") from bad

    @classmethod
    def of_plain(cls, data: Mapping[str, Any]) -> Speed:
        """From what :meth:`plain` gave."""
        made = dict(data)
        made["entries"] = tuple(Timed(**entry) for entry in data["entries"])
        made["rows"] = tuple(_row(row) for row in data["rows"])
        made["layers"] = tuple(_layer(row) for row in data["layers"])
        return cls(**made)


def _row(data: Mapping[str, Any]) -> Row:
    spreads = {name: Spread(**data[name]) for name in ("wall", "processor")}
    return Row(**{**data, **spreads, "faster": Ratio(**data["faster"]) if data["faster"] else None})


def _layer(data: Mapping[str, Any]) -> LayerRow:
    spreads = {name: Spread(**data[name]) for name in ("dense", "own")}
    shapes = {name: tuple(data[name]) for name in ("dense_shape", "shape")}
    return LayerRow(**{**data, **spreads, **shapes, "faster": Ratio(**data["faster"])})
