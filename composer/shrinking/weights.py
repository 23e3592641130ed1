"""The weights of a folder: read one at a time by the names that the model has for them, and written cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import ModelError
from ..files.jsonfile import write_json
from ..files.safetensors import TensorEntry, tensor_entries, write_tensors
from .units import Units, following
from .zeros import Found, nonzeros


class Names(Protocol):
    """What parameters are called where they are kept."""

    def stored(self, name: str) -> str:
        """The name there of a parameter."""
        ...

    def following(self, units: Units, followers: Sequence[str]) -> list[str]:
        """Paths of the further projections of an attention that are there and have the query's rows."""
        ...


class Weights:
    """The tensors of a model folder, by the names of the model's parameters.

    A file may name them without the body's name before them, or with it: transformers reads both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = {entry.name: entry for entry in tensor_entries(folder)}
        self._open: dict[Path, Any] = {}
        self._tails = {name.partition(".")[2]: name for name in self.entries}

    def stored(self, name: str) -> str:
        """What a parameter is called in the files.

        Raises:
            ModelError: the files do not have it.
        """
        for known in _names(name):
            if known in self.entries:
                return known
        if name in self._tails:
            return self._tails[name]
        raise ModelError(f"{self.folder}: the checkpoint has no weights for {name!r}")

    def following(self, units: Units, followers: Sequence[str]) -> list[str]:
        """Paths of the further projections of an attention that are there and have the query's rows."""
        return following(units, followers, lambda path: any(name in self.entries for name in _names(f"{path}.weight")))

    def read(self, name: str) -> Tensor:
        """One parameter, mapped from its file."""
        return self.mapped(self.stored(name))

    def mapped(self, stored: str) -> Tensor:
        """One tensor by its name in the files; files stay open as long as this is."""
        file = self.entries[stored].file
        if file not in self._open:
            self._open[file] = safe_open(file, framework="pt")
        tensor: Tensor = self._open[file].get_tensor(stored)
        return tensor

    @property
    def not_zero(self) -> int:
        """How many numbers of all tensors are not 0."""
        return sum(nonzeros(self.mapped(name)) for name in self.entries)


def _names(name: str) -> tuple[str, str]:
    """What a parameter may be called in files: as in the model, or without the body's name before it."""
    return name, name.partition(".")[2]


@dataclass
class Cut:
    """What of one stored tensor stays: lists of rows, of columns (None: all), and what is added to it first."""

    rows: list[Tensor] | None = None
    columns: Tensor | None = None
    turned: bool = False
    added: Tensor | None = None

    def shape(self, entry: TensorEntry) -> tuple[int, ...]:
        """Its shape then."""
        sizes = list(entry.shape)
        if self.rows is not None:
            sizes[-1 if self.turned else 0] = sum(len(part) for part in self.rows)
        if self.columns is not None:
            sizes[0 if self.turned else -1] = len(self.columns)
        return tuple(sizes)

    def of(self, tensor: Tensor) -> Tensor:
        """The tensor, cut."""
        if self.added is not None:
            tensor = tensor.float() + self.added
        if self.rows is not None:
            tensor = tensor.index_select(-1 if self.turned else 0, torch.cat(self.rows))
        if self.columns is not None:
            tensor = tensor.index_select(0 if self.turned else -1, self.columns)
        return tensor.contiguous()


@dataclass
class Cuts:
    """What of each stored tensor stays; one that is not named stays whole. Of those ``counted`` zeros are counted."""

    by_name: dict[str, Cut] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)

    def take(self, units: Units, found: Found, weights: Names, followers: Sequence[str] = ()) -> None:
        """Cut some units to those that were found to stay.

        Args:
            followers: further projections in an attention that lose the same rows.
        """
        kept = torch.tensor(found.kept, dtype=torch.long)
        if len(kept) < units.count:
            for p in units.first:
                start, rows = (p.part[0] if p.part else 0), _spread(kept, units.rows(p))
                for name in p.parameters:
                    self._rows(weights.stored(name), start + rows, turned=p.transposed and name == p.weight)
            for path in weights.following(units, followers):
                for name in (f"{path}.weight", f"{path}.bias"):
                    self._rows(weights.stored(name), _spread(kept, units.rows(units.first[0])))
            last = self._cut(weights.stored(units.last.weight))
            last.columns, last.turned = _spread(kept, units.columns), units.last.transposed
        if found.shift is not None and units.last.bias_name:
            self.add(weights.stored(units.last.bias_name), found.shift)

    def add(self, name: str, shift: Tensor) -> None:
        """Add something to a stored bias."""
        cut = self._cut(name)
        cut.added = shift if cut.added is None else cut.added + shift

    def columns(self, name: str, columns: Tensor) -> None:
        """Cut a stored matrix to these columns."""
        self._cut(name).columns = columns

    def _cut(self, name: str) -> Cut:
        return self.by_name.setdefault(name, Cut())

    def _rows(self, name: str, rows: Tensor, *, turned: bool = False) -> None:
        cut = self._cut(name)
        cut.rows, cut.turned = [*(cut.rows or []), rows], turned


def _spread(kept: Tensor, size: int) -> Tensor:
    """Indices of units -> indices of their lines."""
    return (kept[:, None] * size + torch.arange(size)).flatten()


@dataclass
class Written:
    """How many parameters were written, their bytes, and how many of a counted tensor are 0, by its stored name."""

    count: int = 0
    bytes: int = 0
    zeros: dict[str, int] = field(default_factory=dict)


def write_cut(weights: Weights, cuts: Cuts, folder: Path, names: Mapping[str, str | None] | None = None) -> Written:
    """Write the cut weights into ``folder``, file by file and tensor by tensor.

    Args:
        names: stored name -> its name in the new files, None for a tensor that goes; others keep theirs.
    """
    names = names or {}
    files = sorted({entry.file for entry in weights.entries.values()})
    places: dict[str, str] = {}
    written = Written()
    for file in files:
        entries = [entry for entry in weights.entries.values() if entry.file == file]
        shapes = {entry.name: _head(entry, cuts.by_name.get(entry.name)) for entry in entries}
        left = [e for e in entries if 0 not in shapes[e.name][1] and names.get(e.name, e.name) is not None]
        if not left:
            continue
        heads = {names.get(entry.name) or entry.name: shapes[entry.name] for entry in left}
        written.bytes += write_tensors(folder / file.name, heads, (_data(weights, e, cuts, written) for e in left))
        written.count += sum(prod(shape) for _, shape in heads.values())
        places |= dict.fromkeys(heads, file.name)
    if len(files) > 1:
        index = {"metadata": {"total_size": written.bytes}, "weight_map": dict(sorted(places.items()))}
        write_json(folder / "model.safetensors.index.json", index)
    return written


def _head(entry: TensorEntry, cut: Cut | None) -> tuple[str, tuple[int, ...]]:
    # A sum is stored in float32 whatever the checkpoint's dtype: rounded, it would be another model's.
    dtype = "F32" if cut and cut.added is not None and entry.dtype != "F64" else entry.dtype
    return dtype, cut.shape(entry) if cut else entry.shape


def _data(weights: Weights, entry: TensorEntry, cuts: Cuts, written: Written) -> TensorEntry | memoryview:
    cut, counted = cuts.by_name.get(entry.name), entry.name in cuts.counted
    if cut is None and not counted:
        return entry
    tensor = weights.mapped(entry.name)
    tensor = cut.of(tensor) if cut else tensor.contiguous()
    if counted:
        written.zeros[entry.name] = tensor.numel() - nonzeros(tensor)
    return tensor.view(-1).view(torch.uint8).numpy().data
