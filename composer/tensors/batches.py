"""Which examples make up a batch: by number, a function of (seed, step) and nothing else; in order; by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

TOKENS = 4096
"""Most tokens of a batch that is only looked at: logits of 4,096 tokens and 50,000 words are 0.8 GB."""

POOL = 50
"""Batches that are sorted by length together: enough that hardly any padding is left, few enough that they differ."""


def batch_indices(examples: int, size: int, *, seed: int, step: int) -> list[int]:
    """Indices of the examples in batch ``step`` (counted from 0).

    Every epoch is a fresh permutation; batches run on over the end of an epoch, so all have ``size``
    examples even when there are fewer than that in all.

    >>> sorted(batch_indices(4, 2, seed=0, step=0) + batch_indices(4, 2, seed=0, step=1))
    [0, 1, 2, 3]
    """
    return [
        int(_permutation(examples, seed, position // examples)[position % examples])
        for position in range(step * size, (step + 1) * size)
    ]


def grouped_by_length(lengths: Sequence[int], size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The batches of an epoch, in each of them examples of like lengths: a function of the arguments alone.

    The epoch's permutation is cut into pools of :data:`POOL` batches, each is sorted by length and cut into batches,
    whose order is drawn; one with fewer examples comes last. So batches still differ from epoch to epoch.

    >>> sorted(map(len, grouped_by_length([3, 1, 2, 9, 4], 2, seed=0, epoch=0)))
    [1, 2, 2]
    """
    order, batches = _permutation(len(lengths), seed, epoch), []
    for start in range(0, len(order), POOL * size):
        pool = sorted((int(i) for i in order[start : start + POOL * size]), key=lambda i: lengths[i])
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    drawn = [batches[i] for i in np.random.default_rng([seed, epoch, 1]).permutation(len(batches))]
    return sorted(drawn, key=lambda batch: len(batch) < size)


def in_order(examples: int, size: int) -> Iterator[range]:
    """Consecutive ranges of at most ``size`` that cover all examples once."""
    return (range(start, min(start + size, examples)) for start in range(0, examples, size))


def by_length(lengths: Sequence[int], batch_size: int, tokens: int = TOKENS) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first; ties keep their order.

    A batch has at most ``batch_size`` examples and at most ``tokens`` tokens, padding included (but always one
    example).

    >>> list(by_length([1, 5, 3], 2)), list(by_length([1, 5, 3], 2, tokens=6))
    ([[1, 2], [0]], [[1], [2, 0]])
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        size = max(1, min(batch_size, tokens // max(1, lengths[order[0]])))
        yield order[:size]
        order = order[size:]


@lru_cache(maxsize=8)
def _permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(examples)
