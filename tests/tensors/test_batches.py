"""Batches of examples of like lengths."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from composer.tensors.batches import POOL, grouped_by_length

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 7), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_every_example_once_and_only_its_last_batch_is_smaller(
    lengths: list[int], size: int, seed: int, epoch: int
) -> None:
    batches = grouped_by_length(lengths, size, seed=seed, epoch=epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size
    assert batches == grouped_by_length(lengths, size, seed=seed, epoch=epoch)


@given(st.lists(st.integers(1, 60), min_size=8, max_size=POOL * 4))
def test_batches_of_one_pool_are_neighbours_by_length(lengths: list[int]) -> None:
    batches = grouped_by_length(lengths, 4, seed=0, epoch=0)
    spans = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in batches)
    assert all(high <= low for (_, high), (low, _) in pairwise(spans))


def test_another_epoch_or_seed_has_other_batches() -> None:
    lengths = [i % 50 + 1 for i in range(1000)]
    first, later, other = (
        {frozenset(batch) for batch in grouped_by_length(lengths, 8, seed=seed, epoch=epoch)}
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    )
    assert len(first & later) < len(first) / 2
    assert len(first & other) < len(first) / 2
