"""Sentence pairs of plain files, as ids, in batches of like length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import pipe
from .vocabulary import PAD, Vocabularies

SPLITS = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
POOL = 50  # batches that are sorted together: enough for little padding, few enough for a mixed order

Pair = tuple[str, str]
Example = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Batch:
    """Ids, padded on the right: source (batch, source), target (batch, target) from ``bos`` to ``eos``."""

    source: Tensor
    target: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same ids on a device."""
        return Batch(self.source.to(device), self.target.to(device))


def read(folder: Path | str, split: str, source: str = "de", target: str = "en") -> list[Pair]:
    """The pairs of ``train``, ``validation`` or ``test``: line n of one file translates line n of the other.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no such split, no lines, or different numbers of lines.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    files = [Path(folder) / f"{SPLITS[split]}.{language}" for language in (source, target)]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file")
    sources, targets = (pipe.lines(file) for file in files)
    if not sources or len(sources) != len(targets):
        raise ValueError(f"{files[0]} has {len(sources)} lines, {files[1]} has {len(targets)}; they must match")
    return list(zip(sources, targets, strict=True))


def vocabularies(pairs: Sequence[Pair], min_frequency: int = 2) -> Vocabularies:
    """The words of both sides that occur often enough."""
    return Vocabularies(
        pipe.build((source for source, _ in pairs), min_frequency),
        pipe.build((target for _, target in pairs), min_frequency),
    )


def encode(pairs: Sequence[Pair], words: Vocabularies, max_length: int) -> list[Example]:
    """Ids of both sides, cut to ``max_length`` with ``bos`` and ``eos``."""
    return [(words.encode_source(a, max_length), words.encode_target(b, max_length)) for a, b in pairs]


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Ids (batch, longest), padded on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def bucketed(examples: Sequence[Example], batch_size: int, seed: int | None = None) -> Iterator[list[int]]:
    """Indices of batches whose sentences are about equally long; every example stands in exactly one.

    With a seed the examples are shuffled, sorted within pools of ``POOL`` batches, and the batches shuffled again;
    without one they come by length.
    """

    def length(i: int) -> tuple[int, int]:
        source, target = examples[i]
        return len(source), len(target)

    order = list(range(len(examples)))
    if seed is None:
        order.sort(key=length)
        yield from (order[i : i + batch_size] for i in range(0, len(order), batch_size))
        return
    chance = random.Random(seed)
    chance.shuffle(order)
    pool = batch_size * POOL
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=length)
        batches.extend(near[i : i + batch_size] for i in range(0, len(near), batch_size))
    chance.shuffle(batches)
    yield from batches


def batches(examples: Sequence[Example], batch_size: int, seed: int | None = None) -> Iterator[Batch]:
    """``bucketed`` as tensors."""
    for rows in bucketed(examples, batch_size, seed):
        yield Batch(pad([examples[i][0] for i in rows]), pad([examples[i][1] for i in rows]))
