"""Safetensors files read as plain bytes, without torch: their heads, and what identifies a model's weights."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import SEEK_END
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelError
from .jsonfile import read_json

DTYPES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
"""Bytes of one number, by the dtype's name in a file's head."""


@dataclass(frozen=True)
class TensorHead:
    """What the head of a safetensors file says of one tensor; its bytes are ``start`` to ``stop`` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class TensorEntry(TensorHead):
    """One tensor of a model folder: what it is, its name, and the file that it is in."""

    name: str
    file: Path


@dataclass(frozen=True)
class Head:
    """The head of a safetensors file: free texts by key, and what is said of each tensor, by name."""

    metadata: dict[str, str]
    tensors: dict[str, TensorHead]


def read_head(file: BinaryIO) -> Head:
    """Read the head of a safetensors file: 8 bytes with its length (little-endian), then JSON.

    The tensors are neither read nor looked for: the file may end before them.

    Raises:
        ValueError: these bytes are no such head.
    """
    whole = file.seek(0, SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if whole < 8 + length:  # before reading: damaged bytes can name any length, up to 2^64
        raise ValueError("header longer than the file")
    content = json.loads(file.read(length))
    try:
        metadata = dict(content.pop("__metadata__", {}))
        return Head(metadata, {name: _tensor(item, 8 + length) for name, item in content.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as bad:
        raise ValueError(f"its header is wrong: {bad!r}") from None


def _tensor(item: dict[str, Any], base: int) -> TensorHead:
    start, stop = item["data_offsets"]  # counted from the end of the head
    return TensorHead(item["dtype"], tuple(item["shape"]), base + start, base + stop)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder (one, or the shards that the index names).

    Raises:
        ModelError: no folder, no safetensors (only ``.bin`` weights are refused by name), a shard missing.
    """
    if not folder.is_dir():
        what = "is a file; a model folder is needed" if folder.exists() else "no such model folder"
        raise ModelError(f"{folder}: {what}")
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        names = _shards(index)
        missing = [
            f"{folder / name}: shard named in {index.name} is missing"
            for name in names
            if not (folder / name).is_file()
        ]
        if missing:
            raise ModelError(missing)
        return [folder / name for name in names]
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack"))
    got = f"got only {', '.join(others)}" if others else "got none"
    raise ModelError(
        f"{folder}: no model.safetensors; {got}; weights are read from safetensors only "
        "(save the model again with save_pretrained)"
    )


def _shards(index: Path) -> list[str]:
    content = read_json(index, ModelError)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{index}: not an index of shards: 'weight_map' must name a file for each tensor")
    return sorted(set(shards.values()))


def tensor_entries(folder: Path) -> list[TensorEntry]:
    """All tensors of a model folder, sorted by name; only the files' headers are read."""
    entries = [entry for file in weight_files(folder) for entry in file_entries(file)]
    return sorted(entries, key=lambda entry: entry.name)


def fingerprint(folder: Path) -> str:
    """sha256 (hex) over sorted tensor names, shapes, dtypes and bytes. Takes time linear in the weights."""
    digest = hashlib.sha256()
    maps: dict[Path, mmap.mmap] = {}
    for entry in tensor_entries(folder):
        digest.update(f"{entry.name}\0{entry.dtype}\0{entry.shape}\0".encode())
        if entry.file not in maps:
            with entry.file.open("rb") as file:
                maps[entry.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with memoryview(maps[entry.file]) as view, view[entry.start : entry.stop] as part:
            digest.update(part)
    for mapped in maps.values():
        mapped.close()
    return digest.hexdigest()


def file_entries(file: Path) -> list[TensorEntry]:
    """What one file holds, from its head alone; a damaged one is a ``ModelError``."""
    with file.open("rb") as stream:
        try:
            head = read_head(stream)
        except ValueError as bad:
            raise ModelError(f"{file}: not a safetensors file: {bad}") from None
    if any(tensor.stop > file.stat().st_size for tensor in head.tensors.values()):
        raise ModelError(f"{file}: truncated: shorter than its header says")
    return [TensorEntry(**vars(tensor), name=name, file=file) for name, tensor in head.tensors.items()]


def write_tensors(
    path: Path,
    heads: Mapping[str, tuple[str, tuple[int, ...]]],
    data: Iterable[TensorEntry | bytes | memoryview],
) -> int:
    """Write a safetensors file tensor by tensor, so that no more than one is ever in memory.

    Args:
        heads: name -> (dtype, shape) of each tensor, dtypes as safetensors writes them.
        data: the bytes of each tensor, in the same order; or the tensor of another file that is copied.

    Returns:
        How many bytes the tensors have.
    """
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape) in heads.items():
        stop = start + prod(shape) * DTYPES[dtype]
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(content, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of 8
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, given in zip(heads, data, strict=True):
            written = _copy(given, file) if isinstance(given, TensorEntry) else file.write(given)
            stated = content[name]["data_offsets"]
            if written != stated[1] - stated[0]:
                raise ValueError(f"{path}: {name}: {written} bytes, and not {stated[1] - stated[0]}")
    return start


def _copy(entry: TensorEntry, file: BinaryIO, piece: int = 1 << 23) -> int:
    """Append a stored tensor to an open file; where the system can, its bytes never come into this process."""
    length = entry.stop - entry.start
    with entry.file.open("rb") as source:
        if sys.platform == "linux":
            file.flush()
            done, sent = 0, 1
            while sent and done < length:
                sent = os.sendfile(file.fileno(), source.fileno(), entry.start + done, length - done)
                done += sent
            return done
        source.seek(entry.start)
        return sum(file.write(source.read(min(piece, length - start))) for start in range(0, length, piece))
