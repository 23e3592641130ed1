"""Columns without input change nothing for the others: every closed form against the same problem without them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from composer.calibration.gram import Gram
from composer.models.family import attention, linear
from composer.pruning.criteria.obs import Obs
from composer.scheme.layout import Projection, Target
from composer.tensors.brain_surgeon import obs_groups
from composer.tensors.least_squares import damping_of, masked_least_squares, wanda_scores
from composer.tensors.sparsegpt import sparsegpt
from composer.tensors.weight_order import weight_order
from composer.training.blocks.moments import RegressionSums

COLUMNS = 12


def layer(dead: set[int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``W``, ``X`` with zeros in the dead columns, ``G``, and which columns live."""
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(5, COLUMNS, generator=draw, dtype=torch.float64)
    X = torch.randn(40, COLUMNS, generator=draw, dtype=torch.float64)
    X = X @ (torch.eye(COLUMNS) + 0.5 * torch.rand(COLUMNS, COLUMNS, generator=draw)).double()
    live = torch.ones(COLUMNS, dtype=torch.bool)
    live[list(dead)] = False
    X[:, ~live] = 0.0
    W[0, live] = 0.0  # weights that cost nothing either, but have an input
    return W, X, X.T @ X, live


Dead = st.sets(st.integers(0, COLUMNS - 1), min_size=1, max_size=COLUMNS)
Seed = st.integers(0, 10**6)


@settings(max_examples=30)
@given(Dead, st.sampled_from([1, 2, 4]), Seed)
def test_groups_without_input_go_first_and_the_rest_is_as_if_they_were_not_there(
    dead: set[int], size: int, seed: int
) -> None:
    idle = sorted({column // size for column in dead if size == 1})
    if size > 1:  # whole groups, and one column of one that has others
        idle = sorted({column // size for column in dead})[: COLUMNS // size - 1]
        part = next(g for g in range(COLUMNS // size) if g not in idle)
        dead = {g * size + i for g in idle for i in range(size)} | {part * size}
    W, _, G, live = layer(dead, seed)
    groups = torch.arange(COLUMNS).reshape(-1, size)

    found = obs_groups(W, G, groups, range(len(groups) + 1), damping=0.01)

    assert list(found.order[: len(idle)]) == idle
    assert found.costs[: len(idle)] == (0.0,) * len(idle)
    if size == 1 and live.any():  # the oracle: drop them
        few = torch.arange(int(live.sum()))[:, None]
        rest = obs_groups(W[:, live], G[live][:, live], few, range(len(few) + 1), damping=0.01)
        assert found.order[len(idle) :] == tuple(live.nonzero().flatten()[list(rest.order)].tolist())
        for count, (keep, weight) in rest.snapshots.items():
            same = found.snapshots[len(idle) + count]
            assert torch.equal(same.keep[live], keep)
            torch.testing.assert_close(same.weight[:, live], weight, rtol=1e-9, atol=1e-12)
    for keep, weight in found.snapshots.values():
        stands = keep.repeat_interleave(size) & ~live
        assert torch.equal(weight[:, stands], W[:, stands])
        assert not weight[:, ~keep.repeat_interleave(size)].any()


@settings(max_examples=20)
@given(Dead, st.sampled_from([0, 1]), Seed)
def test_single_weights_without_input_go_first_and_the_rest_in_the_order_without_them(
    dead: set[int], fixed: int, seed: int
) -> None:
    dead = dead - {COLUMNS - 1} if fixed else dead
    W, _, G, live = layer(dead, seed)
    order = weight_order(W, G, damping=0.01, fixed=fixed)
    own = live[: COLUMNS - fixed]
    assert sorted(order[:, ~own].flatten().tolist()) == list(range(len(W) * int((~own).sum())))
    if own.any():
        rest = weight_order(W[:, live], G[live][:, live], damping=0.01, fixed=fixed)
        assert torch.equal(order[:, own] - len(W) * int((~own).sum()), rest)


@settings(max_examples=20)
@given(Dead, Seed)
def test_a_refit_moves_nothing_without_input_and_the_rest_as_if_it_were_not_there(dead: set[int], seed: int) -> None:
    W, X, G, live = layer(dead, seed)
    mask = torch.rand(W.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    refitted, info = masked_least_squares(W, G, mask, damping=0.01, tolerance=1e-12)
    assert torch.equal(refitted[:, ~live], (W * mask)[:, ~live])
    assert info.unimproved == 0
    sums = RegressionSums(Projection("p", len(W), COLUMNS, bias=False, stream="encoder"), W)
    sums.add(X, X @ (W - W * mask).T, X @ W.T)
    again = sums.solve(W * mask, mask, 0.01, tolerance=1e-12)
    assert torch.equal(again[:, ~live], (W * mask)[:, ~live])
    if live.any():
        few = G[live][:, live]
        assert damping_of(few, 0.01) == pytest.approx(damping_of(G, 0.01))
        rest, _ = masked_least_squares(W[:, live], few, mask[:, live], damping=0.01, tolerance=1e-12)
        torch.testing.assert_close(refitted[:, live], rest, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("live", [0, 7])
@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_sparsegpt_and_wanda_take_what_has_no_input_first(live: int, pattern: tuple[int, int] | None) -> None:
    W, _, G, read = layer(set(range(live, COLUMNS)), 3)
    W[0] = 1.0
    keep, weight = sparsegpt(W, G, removed := len(W) * (COLUMNS - live), dead=1.0, pattern=pattern)
    assert not weight[:, ~read].any()
    if pattern is None:
        assert int((~keep).sum()) == removed
        assert not keep[:, ~read].any()
    assert not wanda_scores(W, G)[:, ~read].any()
    assert (wanda_scores(W, G)[:, read] > 0).all()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["heads", "neurons", "weights"])
def test_a_module_whose_input_is_all_zero_is_ranked_by_index(kind: str, bias: bool) -> None:
    G = torch.zeros(8 + bias, 8 + bias)
    if bias:
        G[-1, -1] = 40
    gram = Gram(G, 40, bias)
    W = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    single = linear("p", 4, 8, bias=bias, stream="encoder")
    if kind == "weights":
        scores = Obs().score(single, [W], {"gram": [gram]})
    elif kind == "heads":
        heads = attention("a", ("q", "k", "v"), width=4, inner=8, heads=4, bias=bias, stream="encoder")
        scores = Obs().score(heads, [W] * 3, {"gram": [gram] * 3, "out": (W, gram)})
    else:
        both = Target("f", "feed_forward", (single.projections[0],) * 2, heads=8)
        scores = Obs().score(both, [W.T, W], {"gram": [gram] * 2})
    assert torch.equal(scores.flatten(), torch.arange(scores.numel()).to(scores))
