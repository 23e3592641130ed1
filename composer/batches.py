"""Which examples make up batch number ``step``: a function of (seed, step) and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np


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


@lru_cache(maxsize=8)
def _permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(examples)
