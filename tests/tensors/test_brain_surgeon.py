"""Brain surgery by groups against solving anew for every candidate; SparseGPT against inverting for every column."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from composer.tensors import brain_surgeon as surgeon
from composer.tensors.brain_surgeon import obs_groups
from composer.tensors.least_squares import masked_least_squares, output_error, wanda_scores
from composer.tensors.sparsegpt import sparsegpt
from tests.reference import closed_form


def layer(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """``W`` and ``G`` of inputs that depend on each other."""
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    X = torch.randn(3 * columns, columns, generator=draw, dtype=torch.float64)
    X = X @ (torch.eye(columns) + 0.5 * torch.rand(columns, columns, generator=draw)).double()
    return W, X.T @ X


Groups = st.sampled_from([(4, 1, 0), (6, 2, 0), (5, 3, 2), (1, 4, 1), (9, 1, 1)])
"""Groups, their size, and columns of no group."""


@settings(max_examples=40)
@given(Groups, st.integers(1, 5), st.sampled_from([1e-3, 0.01, 0.3]), st.integers(0, 10**6))
def test_each_step_takes_the_group_that_is_cheapest_to_lose(
    shape: tuple[int, int, int], rows: int, damping: float, seed: int
) -> None:
    count, size, free = shape
    columns = count * size + free
    W, G = layer(rows, columns, seed)
    groups = torch.randperm(columns, generator=torch.Generator().manual_seed(seed))[: count * size].reshape(count, size)

    removal = obs_groups(W, G, groups, range(count + 1), damping=damping)

    A, _ = closed_form.damped(G.numpy(), damping)
    order, costs = closed_form.greedy_groups(W.numpy(), A, groups.tolist(), count)
    assert list(removal.order) == order
    np.testing.assert_allclose(removal.costs, costs, rtol=1e-6)
    for k, (keep, weight) in removal.snapshots.items():
        assert sorted((~keep).nonzero().flatten().tolist()) == sorted(order[:k])
        mask = torch.ones(rows, columns, dtype=torch.bool)
        mask[:, groups[~keep].flatten()] = False
        np.testing.assert_allclose(weight, closed_form.masked_rows(W.numpy(), A, mask.numpy()), atol=1e-8)


@pytest.mark.parametrize("pending", [1, 5, 32, 1000])
def test_single_columns_are_the_least_squares_solution_at_every_stop(
    pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surgeon, "PENDING", pending)
    W, G = layer(12, 80, seed=4)
    stops = (0, 1, 16, 40, 64, 79, 80)
    removal = obs_groups(W, G, torch.arange(80).reshape(-1, 1), stops, damping=0.01)
    assert tuple(removal.snapshots) == stops
    A, _ = closed_form.damped(G.numpy(), 0.01)
    for count, (keep, weight) in removal.snapshots.items():
        assert (~keep).sum() == count
        D = (W - weight).numpy()
        assert np.trace(D @ A @ D.T) == pytest.approx(sum(removal.costs[:count]), abs=1e-6)
        wanted, _ = masked_least_squares(W, G, keep.expand(12, -1), damping=0.01, tolerance=1e-13)
        assert torch.allclose(weight, wanted, atol=1e-8)
        assert not weight[:, ~keep].any()
    assert torch.equal(removal.snapshots[0].weight, W)


def test_heads_are_the_least_squares_solution_at_every_stop() -> None:
    W, G = layer(24, 49, seed=1)
    groups = torch.arange(48).reshape(6, 8)
    removal = obs_groups(W, G, groups, range(7), damping=0.01)
    for keep, weight in removal.snapshots.values():
        mask = torch.cat([keep.repeat_interleave(8), torch.tensor([True])]).expand(24, -1)
        wanted, _ = masked_least_squares(W, G, mask, damping=0.01, tolerance=1e-13)
        assert torch.allclose(weight, wanted, atol=1e-8)


def test_snapshots_are_nested_and_have_the_dtype_of_the_matrix() -> None:
    W, G = layer(5, 20, seed=2)
    removal = obs_groups(W.float(), G.float(), torch.arange(20).reshape(10, 2), [2, 5, 9], damping=0.01)
    small, middle, large = (removal.snapshots[count] for count in (2, 5, 9))
    assert (large.keep <= middle.keep).all()
    assert (middle.keep <= small.keep).all()
    assert small.weight.dtype == torch.float32
    assert len(removal.order) == 9


def test_equal_groups_go_by_index_and_a_group_without_input_goes_first() -> None:
    G = torch.eye(6, dtype=torch.float64)
    G[4, 4] = 0.0
    removal = obs_groups(torch.ones(2, 6), G, torch.arange(6).reshape(-1, 1), [6], damping=0.01)
    assert removal.order == (4, 0, 1, 2, 3, 5)


def test_a_singular_matrix_is_refused_not_replaced() -> None:
    W, G = torch.ones(3, 4), torch.ones(4, 4)  # all columns read the same
    with pytest.raises(ValueError, match=r"damping: got 0\.0; the inputs' moments are singular"):
        obs_groups(W, G, torch.arange(4).reshape(-1, 1), [2], damping=0.0)


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 9), st.floats(0, 1), st.sampled_from([1, 3, 128]), st.integers(0, 10**6))
def test_sparsegpt_is_that_of_inverting_for_every_column(
    rows: int, columns: int, rate: float, blocksize: int, seed: int
) -> None:
    W, G = layer(rows, columns, seed)
    if seed % 3 == 0:
        G[:, 0] = G[0] = 0.0
    removed = round(rate * W.numel())

    keep, weight = sparsegpt(W, G, removed, blocksize=blocksize, damping=0.01)

    wanted_keep, wanted = closed_form.sparsegpt(W.numpy(), G.numpy(), removed, blocksize, 0.01)
    assert (~keep).sum() == removed
    np.testing.assert_array_equal(keep.numpy(), wanted_keep)
    np.testing.assert_allclose(weight.numpy(), wanted, atol=1e-8)


def test_sparsegpt_beats_masking_and_least_squares_beats_sparsegpt() -> None:
    W, G = layer(32, 64, seed=7)
    removed = round(0.7 * W.numel())
    keep, weight = sparsegpt(W, G, removed, blocksize=16)
    solved, _ = masked_least_squares(W, G, keep, damping=0.01)
    masked = W.masked_fill(wanda_scores(W, G) < wanda_scores(W, G).flatten().sort().values[removed], 0.0)
    assert output_error(W, solved, G) < output_error(W, weight, G) < output_error(W, masked, G)
