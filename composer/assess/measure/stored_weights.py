"""The weights of a model folder, target by target from safetensors: neither the model nor torch is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...errors import ModelError
from ...files.safetensors import TensorEntry, tensor_entries
from ...scheme.layout import Layout, Projection, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...models.folder import BaseModel


DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
"""Kinds of numbers that numpy reads by itself; besides them bfloat16."""


class Weights:
    """The projections of a layout in the safetensors files of a folder.

    One tensor is in memory at a time; shards are opened when they are first read. Within a ``with`` statement::

        with Weights(base) as weights:
            for target in base.layout.targets:
                matrices = weights.of(target)

    Raises:
        ModelError: no safetensors, a tensor that is missing or has another shape than the layout says.
    """

    def __init__(self, base: BaseModel) -> None:
        self.folder, self.layout = base.folder, base.layout
        self._entries = {entry.name: entry for entry in tensor_entries(base.folder)}
        self._places = _places(self._entries, base.layout, base.folder)
        self._maps: dict[Path, NDArray[np.uint8]] = {}

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.clear()

    def of(self, target: Target) -> list[NDArray[np.float32]]:
        """The weight of each of its projections, (out, in), as float32.

        Raises:
            ModelError: a weight that is not finite.
        """
        held: dict[str, NDArray[np.float32]] = {}  # q, k and v may be parts of one tensor
        matrices = []
        for p in target.projections:
            entry = self._places[p.weight]
            if entry.name not in held:
                held[entry.name] = self._read(entry)
            # What it does to tensors, transposing and slicing, it does to arrays as well.
            matrices.append(cast("NDArray[np.float32]", p.of(cast("Any", held[entry.name]))))
        return matrices

    def _read(self, entry: TensorEntry) -> NDArray[np.float32]:
        if entry.file not in self._maps:
            self._maps[entry.file] = np.memmap(entry.file, dtype=np.uint8, mode="r")
        data = self._maps[entry.file][entry.start : entry.stop]
        if entry.dtype == "BF16":  # the upper half of a float32
            values = (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = data.view(DTYPES[entry.dtype]).astype(np.float32)
        if not np.isfinite(values).all():
            raise ModelError(f"{entry.file}: {entry.name}: holds weights that are not finite")
        return values.reshape(entry.shape)


def layers(layout: Layout) -> dict[str, tuple[str, str]]:
    """Target path -> (path of its layer, the stack it stands in).

    The stack is empty where there is only one. A model of no known family has no layers: there it is the path up to
    its first number.
    """
    found: dict[str, tuple[str, str]] = {}
    blocks = list(layout.at("layer"))
    many = len({block.stream for block in blocks}) > 1
    for block in blocks:
        found |= dict.fromkeys(block.targets, (block.path, block.stream if many else ""))
    return {path: found.get(path, (numbered(path), "")) for path in layout.paths}


def numbered(path: str) -> str:
    """A path up to its first number.

    >>> numbered("decoder.block.1.layer.0.SelfAttention.o"), numbered("lm_head")
    ('decoder.block.1', 'lm_head')
    """
    parts = path.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[: first + 1])


def _places(entries: Mapping[str, TensorEntry], layout: Layout, folder: Path) -> dict[str, TensorEntry]:
    """Name of each projection's weight -> where it is in the files."""
    found, problems = {}, []
    for p in (p for target in layout.targets for p in target.projections):
        name = next((name for name in _names(p, entries) if name in entries), None)
        if name is None:
            problems.append(f"{folder}: the checkpoint has no weights for {p.weight!r}")
        elif entries[name].shape != p.stored:
            shape = entries[name].shape
            problems.append(f"{folder}: {p.path!r} has a weight of shape {shape}; its family's table says {p.stored}")
        elif entries[name].dtype not in (*DTYPES, "BF16"):
            allowed = ", ".join((*DTYPES, "BF16"))
            problems.append(f"{folder}: {name}: is stored as {entries[name].dtype}; allowed: {allowed}")
        else:
            found[p.weight] = entries[name]
    if problems:
        raise ModelError(problems[:5])
    return found


def _names(projection: Projection, entries: Mapping[str, TensorEntry]) -> Iterator[str]:
    """What its weight may be called: checkpoints of a bare body lack the prefix of a model with a head, or have it."""
    yield projection.weight
    yield projection.weight.partition(".")[2]
    yield from (name for name in entries if name.partition(".")[2] == projection.weight)
