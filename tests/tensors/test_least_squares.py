"""Masked least squares against dense normal equations, row by row in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from composer.tensors import least_squares as solve
from composer.tensors.least_squares import (
    damping_of,
    masked_least_squares,
    masked_step,
    output_error,
    relative_output_error,
    wanda_scores,
    with_bias,
)
from tests.reference import closed_form

WAYS = ["direct", "iterated"]
Sizes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 30))


def layer(
    rows: int, columns: int, tokens: int, *, seed: int, rate: float = 0.5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """``W``, ``X`` whose columns depend on each other, and a random mask."""
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    X = torch.randn(tokens, columns, generator=draw, dtype=torch.float64)
    X = X @ (torch.eye(columns) + torch.rand(columns, columns, generator=draw)).double()
    mask = torch.rand(rows, columns, generator=draw) >= rate
    return W.to(dtype), X.to(dtype), mask


@contextmanager
def forced(way: str) -> Iterator[None]:
    """Rows are solved by a factor each, or by conjugate gradients, whatever would be quicker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "CALL", 0.0 if way == "direct" else float("inf"))
        patch.setattr(solve, "CALLS", float("inf") if way == "direct" else 0.0)
        yield


@pytest.mark.parametrize("way", WAYS)
@given(Sizes, st.floats(0, 1), st.sampled_from([1e-3, 0.01, 1.0]), st.integers(0, 10**6))
def test_it_solves_the_normal_equations_of_every_row(
    way: str, sizes: tuple[int, int, int], rate: float, damping: float, seed: int
) -> None:
    W, X, mask = layer(*sizes, seed=seed, rate=rate)
    G = X.T @ X

    with forced(way):
        got, info = masked_least_squares(W, G, mask, damping=damping, tolerance=1e-12)

    A, strength = closed_form.damped(G.numpy(), damping)
    wanted = closed_form.masked_rows(W.numpy(), A, mask.numpy())
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-8)
    assert info.damping == pytest.approx(strength)
    assert info.unconverged == 0


@pytest.mark.parametrize("way", WAYS)
@given(Sizes, st.floats(0, 1), st.sampled_from([0.0, 1e-6, 0.01]), st.integers(0, 10**6), st.booleans())
def test_no_row_ends_worse_than_it_starts(
    way: str, sizes: tuple[int, int, int], rate: float, damping: float, seed: int, double: bool
) -> None:
    dtype = torch.float64 if double else torch.float32
    W, X, mask = layer(*sizes, seed=seed, rate=rate, dtype=dtype)
    with forced(way):
        got, _ = masked_least_squares(W, X.T @ X, mask, damping=damping, max_iterations=seed % 5)
    assert got.dtype == dtype
    assert not got[~mask].any()
    for i in range(len(W)):
        before = closed_form.error(*(closed_form.array(t) for t in (W[i : i + 1], (W * mask)[i : i + 1], X)))
        after = closed_form.error(*(closed_form.array(t) for t in (W[i : i + 1], got[i : i + 1], X)))
        assert after <= before * (1 + (1e-9 if double else 1e-4))


@pytest.mark.parametrize("way", WAYS)
@given(Sizes, st.sampled_from([0.0, 0.01]), st.integers(0, 10**6))
def test_zero_rate_is_the_identity_to_the_bit(way: str, sizes: tuple[int, int, int], damping: float, seed: int) -> None:
    W, X, _ = layer(*sizes, seed=seed, dtype=torch.float32)
    with forced(way):
        got, info = masked_least_squares(W, X.T @ X, torch.ones_like(W, dtype=torch.bool), damping=damping)
    assert torch.equal(got, W)
    assert (info.iterations, info.residual) == (0, 0.0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_a_kept_weight_without_input_keeps_its_value(way: str, damping: float) -> None:
    W, X, mask = layer(8, 10, 40, seed=1, dtype=torch.float32)
    X[:, [2, 7]] = 0.0
    mask[:, 2] = True
    with forced(way):
        got, _ = masked_least_squares(W, X.T @ X, mask, damping=damping)
    assert torch.equal(got[:, 2], W[:, 2])
    assert torch.equal(got[:, 7], (W * mask)[:, 7])
    assert not torch.equal(got, W * mask)


def test_inputs_that_are_all_zero_change_nothing() -> None:
    W, _, mask = layer(3, 4, 5, seed=0)
    got, info = masked_least_squares(W, torch.zeros(4, 4).double(), mask, damping=0.01)
    assert torch.equal(got, W * mask)
    assert (info.damping, info.iterations, info.unimproved) == (0.0, 0, 0)


@pytest.mark.parametrize("way", WAYS)
@given(st.floats(0, 1), st.integers(0, 10**6))
def test_another_output_on_other_inputs_can_be_wanted(way: str, rate: float, seed: int) -> None:
    W, X, mask = layer(4, 6, 25, seed=seed, rate=rate)
    Y = X @ W.T
    X_hat = X + 0.3 * torch.randn(X.shape, generator=torch.Generator().manual_seed(seed), dtype=X.dtype)
    G = X_hat.T @ X_hat
    right = Y.T @ X_hat + damping_of(G, 0.01) * W

    with forced(way):
        got, _ = masked_least_squares(W, G, mask, damping=0.01, target=right, tolerance=1e-12)

    A, strength = closed_form.damped(G.numpy(), 0.01)
    wanted = closed_form.masked_rows(W.numpy(), A, mask.numpy(), right.numpy())
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-8)

    def objective(V: Tensor) -> float:
        return float(((Y - X_hat @ V.T) ** 2).sum() + strength * ((W - V) ** 2).sum())

    assert objective(got) <= objective(W * mask) * (1 + 1e-12)


def test_a_bias_takes_over_what_a_removed_weight_gave_on_average() -> None:
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(500, 3, generator=draw).double() * 0.1 + torch.tensor([5.0, 0.0, 0.0])
    ones = torch.cat([X, torch.ones(500, 1)], 1)
    W, bias, keep = torch.ones(1, 3).double(), torch.zeros(1).double(), torch.tensor([[False, True, True]])

    augmented, mask = with_bias(W, bias, keep)
    got, _ = masked_least_squares(augmented, ones.T @ ones, mask, damping=1e-6)

    assert mask.tolist() == [[False, True, True, True]]
    assert got[0, -1].item() == pytest.approx(5.0, abs=0.05)
    assert with_bias(W, None)[1].tolist() == [[True, True, True]]


@pytest.mark.parametrize("way", WAYS)
def test_a_singular_matrix_without_damping_is_solved_too(way: str) -> None:
    W, X, mask = layer(4, 6, 20, seed=3)
    X[:, 1] = X[:, 0]
    mask[:, 0], mask[:, 1:] = False, True
    with forced(way):
        got, _ = masked_least_squares(W, X.T @ X, mask, damping=0.0)
    assert output_error(W, got, X.T @ X) < 1e-6 * output_error(W, W * mask, X.T @ X)
    assert torch.allclose(got[:, 1], W[:, 0] + W[:, 1], atol=1e-3)


@pytest.mark.parametrize("shape", ["columns", "rows of blocks", "each row its own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_row_is_the_least_squares_fit_on_its_kept_columns(shape: str, dtype: torch.dtype) -> None:
    W, X, mask = layer(16, 48, 300, seed=4, dtype=dtype)
    if shape != "each row its own":
        mask = mask[:1].expand(16, -1) if shape == "columns" else mask[::8].repeat_interleave(8, 0)
    G, Y = X.double().T @ X.double(), X.double() @ W.double().T

    got, info = masked_least_squares(W, G, mask, damping=0.01, tolerance=1e-7)

    strength = damping_of(G, 0.01) ** 0.5
    for i, kept in enumerate(mask):  # ridge towards w: more rows of the same least squares problem
        read = torch.cat([X.double(), strength * torch.eye(48).double()])[:, kept]
        wanted = torch.cat([Y[:, i], strength * W[i].double()])
        fit = torch.linalg.lstsq(read, wanted[:, None], driver="gelsd").solution[:, 0]
        torch.testing.assert_close(got[i, kept].double(), fit, rtol=2e-4, atol=2e-4 if dtype == torch.float32 else 1e-6)
    assert info.unconverged == info.unimproved == 0


def test_masks_of_whole_columns_need_no_iteration_and_those_of_single_weights_do() -> None:
    W, X, mask = layer(96, 64, 300, seed=6, dtype=torch.float32)
    G = X.T @ X
    assert masked_least_squares(W, G, mask[:1].expand(96, -1), damping=0.01)[1].iterations == 0
    assert masked_least_squares(W, G, mask[::24].repeat_interleave(24, 0), damping=0.01)[1].iterations == 0
    assert masked_least_squares(W, G, mask, damping=0.01)[1].iterations > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dead", [0, 20, 60])
def test_columns_that_no_row_keeps_are_left_out_and_change_nothing(way: str, dead: int) -> None:
    W, X, mask = layer(12, 64, 300, seed=7)
    mask[:, 3 : 3 + dead] = False
    G = X.T @ X
    with forced(way):
        got, _ = masked_least_squares(W, G, mask, damping=0.01, tolerance=1e-12)
    A, _ = closed_form.damped(G.numpy(), 0.01)
    np.testing.assert_allclose(got.numpy(), closed_form.masked_rows(W.numpy(), A, mask.numpy()), rtol=1e-6, atol=1e-8)


def test_the_gain_of_a_step_is_by_how_much_the_error_falls() -> None:
    W, X, mask = layer(40, 30, 60, seed=8)
    A = X.T @ X + 0.01 * torch.eye(30)
    gap = W - W * mask
    got = masked_step(A, (gap @ A) * mask, mask, goal=torch.full((40,), 1e-3, dtype=W.dtype))
    before, after = (((D @ A) * D).sum(1) for D in (gap, gap - got.step))
    torch.testing.assert_close(before - after, got.gain, rtol=1e-9, atol=1e-9)
    assert (got.gain > 0).all()
    assert (got.residual <= 1e-3 * (1 + 1e-9)).all()


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_rows_do_not_depend_on_each_other(seed: int) -> None:
    W, X, mask = layer(5, 8, 40, seed=seed)
    whole, _ = masked_least_squares(W, X.T @ X, mask, damping=0.01, tolerance=1e-11)
    alone = [
        masked_least_squares(W[i : i + 1], X.T @ X, mask[i : i + 1], damping=0.01, tolerance=1e-11)[0] for i in range(5)
    ]
    assert torch.allclose(whole, torch.cat(alone), rtol=1e-7, atol=1e-9)


def test_what_is_given_is_not_changed_and_iterations_can_run_out() -> None:
    W, X, mask = layer(40, 20, 100, seed=5, dtype=torch.float32)
    G = X.T @ X
    copies = W.clone(), G.clone(), mask.clone()
    got, info = masked_least_squares(W, G, mask, damping=0.01, max_iterations=1)
    assert (info.iterations, info.unconverged) == (1, 40)
    assert info.residual > 1e-6
    assert output_error(W, got, G) < output_error(W, W * mask, G)
    assert all(torch.equal(a, b) for a, b in zip((W, G, mask), copies, strict=True))
    _, info = masked_least_squares(W, G, mask, damping=0.01)
    assert info.unconverged == info.unimproved == 0
    assert info.residual < 1e-5


def test_float32_is_close_to_float64_on_badly_conditioned_inputs() -> None:
    W, X, mask = layer(32, 64, 400, seed=2, rate=0.6)
    X = X * torch.logspace(0, 2, 64).double()
    G = X.T @ X
    exact, _ = masked_least_squares(W, G, mask, damping=0.01, tolerance=1e-12)
    quick, _ = masked_least_squares(W.float(), G, mask, damping=0.01)
    assert relative_output_error(W, quick.double(), G) == pytest.approx(relative_output_error(W, exact, G), rel=1e-3)


@given(Sizes, st.integers(0, 10**6))
def test_errors_are_those_of_the_outputs(sizes: tuple[int, int, int], seed: int) -> None:
    W, X, mask = layer(*sizes, seed=seed)
    by_hand = closed_form.error(W.numpy(), (W * mask).numpy(), X.numpy())
    assert output_error(W, W * mask, X.T @ X) == pytest.approx(by_hand, rel=1e-9, abs=1e-9)
    whole = closed_form.error(W.numpy(), 0 * W.numpy(), X.numpy())
    assert relative_output_error(W, W * mask, X.T @ X) == pytest.approx(by_hand / whole, rel=1e-9, abs=1e-9)


def test_the_error_of_a_silent_layer_is_plain() -> None:
    G = torch.eye(2)
    assert relative_output_error(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), G) == 25.0


def test_wanda_weighs_by_the_length_of_the_input() -> None:
    X = torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    assert torch.allclose(wanda_scores(torch.tensor([[1.0, -7.0]]), X.T @ X), torch.tensor([[5.0, 7.0]]))
