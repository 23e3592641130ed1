"""A saved model's numbers in the dtype of the folder that it came from: 16 bits stay 16 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import ModelError
from ..files.jsonfile import read_json, write_json
from ..files.safetensors import TensorEntry, tensor_entries, weight_files, write_tensors

HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes of 16 bits, by what a file's head calls them."""


def keep_dtype(folder: Path, source: Path) -> None:
    """Store the float32 weights in ``folder`` as ``source`` stores its own, where those have 16 bits.

    Each tensor has the dtype of the one of its name there, and one of a new name the dtype that most numbers there
    have. A tensor with a number that is too large for it stays in 32 bits. Files are written tensor by tensor.
    """
    there = tensor_entries(source)
    before = {entry.name: entry.dtype for entry in there}
    if not set(before.values()) & HALVES.keys():
        return
    most = _most(there)
    entries = tensor_entries(folder)
    for file in weight_files(folder):
        own = sorted((entry for entry in entries if entry.file == file), key=lambda entry: entry.start)
        wanted = {entry.name: _dtype(entry, before.get(entry.name, most)) for entry in own}
        if any(wanted[entry.name] != entry.dtype for entry in own):
            _rewrite(file, own, wanted)
    _tell(folder, most)


def _most(entries: list[TensorEntry]) -> str:
    """The dtype that most numbers have."""
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry.dtype] += entry.size
    return counts.most_common(1)[0][0]


def _dtype(entry: TensorEntry, before: str) -> str:
    fits = entry.dtype == "F32" and before in HALVES and bool(rounded(_read(entry), HALVES[before]).isfinite().all())
    return before if fits else entry.dtype


def _read(entry: TensorEntry) -> Tensor:
    with safe_open(entry.file, framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(entry.name)
    return tensor


def _rewrite(file: Path, entries: list[TensorEntry], wanted: Mapping[str, str]) -> None:
    heads = {entry.name: (wanted[entry.name], entry.shape) for entry in entries}
    beside = file.with_name(f".{file.name}")
    write_tensors(beside, heads, (_data(entry, wanted[entry.name]) for entry in entries))
    beside.replace(file)


def _data(entry: TensorEntry, dtype: str) -> TensorEntry | memoryview:
    if dtype == entry.dtype:
        return entry
    return rounded(_read(entry), HALVES[dtype]).view(-1).view(torch.uint8).numpy().data


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """``tensor`` in ``dtype``, which is 0 only where ``tensor`` is: what is 0 is what was removed.

    >>> rounded(torch.tensor([0.0, 1e-9, -1e-9]), torch.float16)
    tensor([ 0.0000e+00,  5.9605e-08, -5.9605e-08], dtype=torch.float16)
    """
    result = tensor.to(dtype)
    if (lost := (result == 0) & (tensor != 0)).any():
        limits = torch.finfo(dtype)
        least = torch.full_like(tensor[lost], limits.smallest_normal * limits.eps)
        result[lost] = torch.copysign(least, tensor[lost]).to(dtype)
    return result


def _tell(folder: Path, dtype: str) -> None:
    """Say it in ``config.json``, by which transformers chooses a dtype, and in the index of shards."""
    if dtype in HALVES:
        _change(folder / "config.json", {"dtype": str(HALVES[dtype]).removeprefix("torch.")})
    size = sum(entry.stop - entry.start for entry in tensor_entries(folder))
    _change(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}})


def _change(path: Path, values: Mapping[str, object]) -> None:
    if path.is_file():
        write_json(path, {**read_json(path, ModelError), **values})
