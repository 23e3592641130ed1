"""The closed form of one projection, against dense normal equations row by row; and what its moments are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from composer.calibration.gram import Gram
from composer.scheme.layout import Projection
from composer.training.blocks.moments import BaseMoments, RegressionSums, kept, matrix, separated
from composer.training.blocks.trainer import relative_error
from tests.reference.closed_form import masked_rows

TOKENS, IN, OUT = 200, 7, 5
DAMPING = 0.01
CPU = torch.device("cpu")
PLAIN = Projection("w", OUT, IN, False, "encoder")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moments(
    last: Projection, inputs: Tensor, outputs: Tensor, batches: int = 1, reference: Tensor | None = None
) -> RegressionSums:
    """Of a block whose whole output is the projection's; ``reference`` are weights, with the bias last."""
    reference = normal(9, OUT, IN + last.bias) if reference is None else reference
    read = torch.cat([inputs, torch.ones(len(inputs), 1)], 1) if last.bias else inputs
    made = RegressionSums(last, reference)
    for part in torch.arange(len(inputs)).chunk(batches):
        made.add(inputs[part], (outputs - read @ reference.T)[part], outputs[part])
    return made


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batches", [1, 4])
def test_it_solves_the_normal_equations_of_each_row(bias: bool, transposed: bool, batches: int) -> None:
    inputs, base, offset = normal(0, TOKENS, IN), normal(2, OUT, IN), normal(3, OUT)
    keep = base.abs() > 0.6
    wanted = inputs @ base.T + (offset if bias else 0)
    start = {"w.weight": (base * keep).T.contiguous() if transposed else base * keep}
    if bias:
        start["w.bias"] = torch.zeros(OUT)
    masks = {"w.weight": keep.T.contiguous() if transposed else keep}
    last = Projection("w", OUT, IN, bias, "encoder", transposed)

    known = moments(last, inputs, wanted, batches)
    solved = separated(known.solve(matrix(start, last), kept(masks, last, CPU), DAMPING), last)

    X = inputs.double().numpy()
    W, M = (base * keep).double().numpy(), keep.numpy()
    Y = wanted.double().numpy()
    if bias:
        X = np.hstack([X, np.ones((TOKENS, 1))])
        W, M = np.hstack([W, np.zeros((OUT, 1))]), np.hstack([M, np.ones((OUT, 1), dtype=bool)])
    strength = DAMPING * np.diag(X.T @ X).mean()
    oracle = masked_rows(W, X.T @ X + strength * np.eye(X.shape[1]), M, Y.T @ X + strength * W)
    weight = solved["w.weight"].T if transposed else solved["w.weight"]
    np.testing.assert_allclose(weight.numpy(), oracle[:, :IN], atol=2e-3)
    if bias:
        np.testing.assert_allclose(solved["w.bias"].numpy(), oracle[:, IN], atol=2e-3)
    assert (weight[~keep] == 0).all()
    assert solved["w.weight"].shape == start["w.weight"].shape


def test_its_error_is_that_of_the_outputs_and_never_above_the_unrepaired_one() -> None:
    for seed in range(20):
        inputs, base = normal(seed, 30, IN), normal(seed + 100, OUT, IN)
        keep = normal(seed + 200, OUT, IN) > 0
        known = moments(PLAIN, inputs, inputs @ base.T)
        before = known.error(base * keep)
        assert before == pytest.approx(relative_error(inputs @ (base * keep).T, inputs @ base.T).item(), rel=1e-4)
        solved = known.solve(base * keep, keep, DAMPING)
        after = relative_error(inputs @ solved.T, inputs @ base.T).item()
        assert known.error(solved) == pytest.approx(after, rel=1e-3, abs=1e-6)
        assert after <= before * (1 + 1e-6)


def test_all_rates_of_a_module_share_one_inverse_and_each_gets_its_own_solution() -> None:
    inputs, base = normal(0, TOKENS, IN), normal(1, OUT, IN)
    shared = moments(PLAIN, inputs, inputs @ base.T)
    for limit in (0.3, 0.6, 1.2):
        keep = base.abs() > limit
        alone = moments(PLAIN, inputs, inputs @ base.T).solve(base * keep, keep, DAMPING)
        assert torch.equal(shared.solve(base * keep, keep, DAMPING), alone)


def test_nothing_removed_changes_nothing() -> None:
    inputs, base = normal(0, TOKENS, IN), normal(1, OUT, IN)
    known = moments(PLAIN, inputs, inputs @ base.T)
    solved = known.solve(base, kept({}, PLAIN, CPU), DAMPING)
    torch.testing.assert_close(solved, base, atol=1e-5, rtol=0)


def test_a_kept_weight_whose_input_is_always_zero_keeps_its_value() -> None:
    inputs, base = normal(0, TOKENS, IN), normal(1, OUT, IN)
    inputs[:, 3] = 0
    keep = base.abs() > 0.6
    keep[:, 3] = True
    solved = moments(PLAIN, inputs, inputs @ base.T).solve(base * keep, keep, DAMPING)
    torch.testing.assert_close(solved[:, 3], base[:, 3], atol=1e-6, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("heads", [False, True])
def test_moments_of_the_base_model_are_those_of_its_outputs_on_what_is_left_of_its_inputs(
    bias: bool, heads: bool
) -> None:
    inputs = normal(0, TOKENS, IN)
    last = Projection("w", OUT, IN, bias, "encoder")
    base = {"w.weight": normal(1, OUT, IN), "w.bias": normal(2, OUT)}
    live = torch.tensor([True, True, False, False, True, True, False]) if heads else torch.ones(IN, dtype=torch.bool)
    column = torch.ones(TOKENS, 1)
    read = torch.cat([inputs, column], 1) if bias else inputs
    gram = Gram((read.T @ read).double(), TOKENS, bias)

    known = BaseMoments(gram, last, base).cut(live)

    outputs = inputs @ base["w.weight"].T + (base["w.bias"] if bias else 0)
    seen = moments(last, inputs * live, outputs, reference=matrix(base, last))
    assert known.square == pytest.approx(seen.square, rel=1e-4, abs=1e-2)
    assert known.scale == pytest.approx(seen.scale, rel=1e-4)
    keep = normal(3, OUT, IN + bias) > -0.5
    start = matrix(base, last) * keep + 0.1 * keep
    own, other = (some.refit(start, keep, DAMPING, tolerance=1e-6) for some in (known, seen))
    torch.testing.assert_close(own.weight, other.weight, rtol=1e-4, atol=1e-4)
    assert (own.before, own.after) == pytest.approx((other.before, other.after), rel=1e-3)
    assert known.error(own.weight) == pytest.approx(seen.error(own.weight), rel=1e-3)


def test_weighted_tokens_are_rows_as_much_longer() -> None:
    inputs, gap, weights = normal(0, TOKENS, IN), normal(1, TOKENS, OUT), normal(2, TOKENS).square()
    last, start, keep = Projection("w", OUT, IN, True, "encoder"), normal(3, OUT, IN + 1), normal(4, OUT, IN + 1) > 0
    keep[:, -1] = True
    start *= keep
    known = RegressionSums(last, start)
    for part in torch.arange(TOKENS).chunk(3):
        known.add(inputs[part], gap[part], gap[part], weights[part])
    solved = known.solve(start, keep, DAMPING, tolerance=1e-6)

    root = np.sqrt(weights.double().numpy())[:, None]
    X = np.hstack([inputs.double().numpy(), np.ones((TOKENS, 1))])
    W, Y = start.double().numpy(), X @ start.double().numpy().T + gap.double().numpy()
    A = (root * X).T @ (root * X)
    strength = DAMPING * np.diag(A).mean()
    wanted = masked_rows(W, A + strength * np.eye(IN + 1), keep.numpy(), (root * Y).T @ (root * X) + strength * W)
    np.testing.assert_allclose(solved.numpy(), wanted, rtol=1e-3, atol=1e-4)
