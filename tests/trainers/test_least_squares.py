"""The closed-form trainer of one block's last projection, against dense normal equations row by row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from composer.layout import Projection
from composer.trainers.least_squares import LeastSquares
from composer.trainers.trainer import BlockSettings, relative_error
from tests.reference.closed_form import masked_rows

TOKENS, IN, OUT = 200, 7, 5
SETTINGS = BlockSettings("least_squares", 1, 50, 1e-3, 3, 0, calibration_size=200, damping=0.01)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Lesson:
    """A block that is a linear map of its inputs plus something that no weight touches (a residual, say)."""

    def __init__(self, inputs: Tensor, rest: Tensor, *, transposed: bool = False) -> None:
        self.inputs, self.rest, self.transposed = inputs, rest, transposed

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        weight = parameters["w.weight"].T if self.transposed else parameters["w.weight"]
        return self.inputs @ weight.T + parameters.get("w.bias", torch.zeros(())) + self.rest

    def probe(self, parameters: Mapping[str, Tensor], path: str) -> tuple[Tensor, Tensor]:
        assert path == "w"
        return self.inputs, self(parameters)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("batches", [1, 4])
def test_it_solves_the_normal_equations_of_each_row(bias: bool, transposed: bool, batches: int) -> None:
    inputs, rest, base, offset = normal(0, TOKENS, IN), normal(1, TOKENS, OUT), normal(2, OUT, IN), normal(3, OUT)
    keep = base.abs() > 0.6
    wanted = inputs @ base.T + rest + (offset if bias else 0)
    start = {"w.weight": (base * keep).T.contiguous() if transposed else base * keep}
    if bias:
        start["w.bias"] = torch.zeros(OUT)
    masks = {"w.weight": keep.T.contiguous() if transposed else keep}
    last = Projection("w", OUT, IN, bias, "encoder", transposed)
    trainer = LeastSquares.start(start, masks, last, SETTINGS)
    for part in torch.arange(TOKENS).chunk(batches):
        trainer.step(Lesson(inputs[part], rest[part], transposed=transposed), wanted[part])
    solved = trainer.finish()

    X = inputs.double().numpy()
    W, M = (base * keep).double().numpy(), keep.numpy()
    Y = (wanted - rest).double().numpy()
    if bias:
        X = np.hstack([X, np.ones((TOKENS, 1))])
        W, M = np.hstack([W, np.zeros((OUT, 1))]), np.hstack([M, np.ones((OUT, 1), dtype=bool)])
    strength = SETTINGS.damping * np.diag(X.T @ X).mean()
    oracle = masked_rows(W, X.T @ X + strength * np.eye(X.shape[1]), M, Y.T @ X + strength * W)
    weight = solved["w.weight"].T if transposed else solved["w.weight"]
    np.testing.assert_allclose(weight.numpy(), oracle[:, :IN], atol=2e-3)
    if bias:
        np.testing.assert_allclose(solved["w.bias"].numpy(), oracle[:, IN], atol=2e-3)
    assert (weight[~keep] == 0).all()


def test_the_error_on_the_calibration_data_is_never_above_the_unrepaired_one() -> None:
    for seed in range(20):
        inputs, base = normal(seed, 30, IN), normal(seed + 100, OUT, IN)
        keep = normal(seed + 200, OUT, IN) > 0
        lesson, wanted = Lesson(inputs, torch.zeros(30, OUT)), inputs @ base.T
        last = Projection("w", OUT, IN, False, "encoder")
        trainer = LeastSquares.start({"w.weight": base * keep}, {"w.weight": keep}, last, SETTINGS)
        before = trainer.step(lesson, wanted)
        assert before == pytest.approx(relative_error(inputs @ (base * keep).T, wanted).item())
        assert trainer.error(lesson, wanted) <= before


def test_nothing_removed_changes_nothing() -> None:
    inputs, base = normal(0, TOKENS, IN), normal(1, OUT, IN)
    last = Projection("w", OUT, IN, False, "encoder")
    trainer = LeastSquares.start({"w.weight": base}, {}, last, SETTINGS)
    trainer.step(Lesson(inputs, torch.zeros(TOKENS, OUT)), inputs @ base.T)
    torch.testing.assert_close(trainer.finish()["w.weight"], base, atol=1e-5, rtol=0)


def test_a_kept_weight_whose_input_is_always_zero_keeps_its_value() -> None:
    inputs, base = normal(0, TOKENS, IN), normal(1, OUT, IN)
    inputs[:, 3] = 0
    keep = base.abs() > 0.6
    keep[:, 3] = True
    last = Projection("w", OUT, IN, False, "encoder")
    trainer = LeastSquares.start({"w.weight": base * keep}, {"w.weight": keep}, last, SETTINGS)
    trainer.step(Lesson(inputs, torch.zeros(TOKENS, OUT)), inputs @ base.T)
    torch.testing.assert_close(trainer.finish()["w.weight"][:, 3], base[:, 3], atol=1e-6, rtol=0)


def test_it_sees_the_calibration_sample_once() -> None:
    assert LeastSquares.plan(SETTINGS) == (4, 4)


def test_before_it_has_seen_anything_it_returns_its_start() -> None:
    base = normal(1, OUT, IN)
    trainer = LeastSquares.start({"w.weight": base}, {}, Projection("w", OUT, IN, False, "encoder"), SETTINGS)
    assert torch.equal(trainer.finish()["w.weight"], base)
