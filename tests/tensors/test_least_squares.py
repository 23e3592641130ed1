"""Masked least squares against dense normal equations, row by row in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from composer.tensors.least_squares import (
    damping_of,
    masked_least_squares,
    output_error,
    relative_output_error,
    wanda_scores,
    with_bias,
)
from tests.reference import closed_form

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


@given(Sizes, st.floats(0, 1), st.sampled_from([1e-3, 0.01, 1.0]), st.integers(0, 10**6))
def test_it_solves_the_normal_equations_of_every_row(
    sizes: tuple[int, int, int], rate: float, damping: float, seed: int
) -> None:
    W, X, mask = layer(*sizes, seed=seed, rate=rate)
    G = X.T @ X

    got, info = masked_least_squares(W, G, mask, damping=damping, tolerance=1e-12)

    A, strength = closed_form.damped(G.numpy(), damping)
    wanted = closed_form.masked_rows(W.numpy(), A, mask.numpy())
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-8)
    assert info.damping == pytest.approx(strength)
    assert info.unconverged == 0


@given(Sizes, st.floats(0, 1), st.sampled_from([0.0, 1e-6, 0.01]), st.integers(0, 10**6), st.booleans())
def test_no_row_ends_worse_than_it_starts(
    sizes: tuple[int, int, int], rate: float, damping: float, seed: int, double: bool
) -> None:
    dtype = torch.float64 if double else torch.float32
    W, X, mask = layer(*sizes, seed=seed, rate=rate, dtype=dtype)
    got, _ = masked_least_squares(W, X.T @ X, mask, damping=damping, max_iterations=seed % 5)
    assert got.dtype == dtype
    assert not got[~mask].any()
    for i in range(len(W)):
        before = closed_form.error(*(closed_form.array(t) for t in (W[i : i + 1], (W * mask)[i : i + 1], X)))
        after = closed_form.error(*(closed_form.array(t) for t in (W[i : i + 1], got[i : i + 1], X)))
        assert after <= before * (1 + (1e-9 if double else 1e-4))


@given(Sizes, st.sampled_from([0.0, 0.01]), st.integers(0, 10**6))
def test_zero_rate_is_the_identity_to_the_bit(sizes: tuple[int, int, int], damping: float, seed: int) -> None:
    W, X, _ = layer(*sizes, seed=seed, dtype=torch.float32)
    got, info = masked_least_squares(W, X.T @ X, torch.ones_like(W, dtype=torch.bool), damping=damping)
    assert torch.equal(got, W)
    assert (info.iterations, info.residual) == (0, 0.0)


@pytest.mark.parametrize("damping", [0.0, 0.01])
def test_a_kept_weight_without_input_keeps_its_value(damping: float) -> None:
    W, X, mask = layer(8, 10, 40, seed=1, dtype=torch.float32)
    X[:, [2, 7]] = 0.0
    mask[:, 2] = True
    got, _ = masked_least_squares(W, X.T @ X, mask, damping=damping)
    assert torch.equal(got[:, 2], W[:, 2])
    assert torch.equal(got[:, 7], (W * mask)[:, 7])
    assert not torch.equal(got, W * mask)


def test_inputs_that_are_all_zero_change_nothing() -> None:
    W, _, mask = layer(3, 4, 5, seed=0)
    got, info = masked_least_squares(W, torch.zeros(4, 4).double(), mask, damping=0.01)
    assert torch.equal(got, W * mask)
    assert (info.damping, info.iterations, info.unimproved) == (0.0, 0, 0)


@given(st.floats(0, 1), st.integers(0, 10**6))
def test_another_output_on_other_inputs_can_be_wanted(rate: float, seed: int) -> None:
    W, X, mask = layer(4, 6, 25, seed=seed, rate=rate)
    Y = X @ W.T
    X_hat = X + 0.3 * torch.randn(X.shape, generator=torch.Generator().manual_seed(seed), dtype=X.dtype)
    G = X_hat.T @ X_hat
    right = Y.T @ X_hat + damping_of(G, 0.01) * W

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


def test_a_singular_matrix_without_damping_is_solved_too() -> None:
    W, X, mask = layer(4, 6, 20, seed=3)
    X[:, 1] = X[:, 0]
    mask[:, 0], mask[:, 1:] = False, True
    got, _ = masked_least_squares(W, X.T @ X, mask, damping=0.0)
    assert output_error(W, got, X.T @ X) < 1e-6 * output_error(W, W * mask, X.T @ X)
    assert torch.allclose(got[:, 1], W[:, 0] + W[:, 1], atol=1e-3)


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
    W, X, mask = layer(6, 20, 100, seed=5, dtype=torch.float32)
    G = X.T @ X
    copies = W.clone(), G.clone(), mask.clone()
    got, info = masked_least_squares(W, G, mask, damping=0.01, max_iterations=1)
    assert (info.iterations, info.unconverged) == (1, 6)
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
