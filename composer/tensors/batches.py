"""Which examples make up a batch: by number, a function of (seed, step) and nothing else; in order; by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

TOKENS = 4096
"""Most tokens of a batch that is only looked at: logits of 4,096 tokens and 50,000 words are 0.8 GB."""


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
