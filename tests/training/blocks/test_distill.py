"""The gradient trainer of one block, on a block that is a plain matrix."""

from __future__ import annotations

import math

import pytest
import torch

from composer.errors import InputError
from composer.training.blocks import TRAINERS
from composer.training.blocks.distill import Distill
from composer.training.blocks.trainer import Run, relative_error

INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
BASE = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
WANTED = INPUTS @ BASE.T
KEEP = BASE.abs() > 0.5


def run_on(inputs: torch.Tensor) -> Run:
    def run(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs @ parameters["w"].T + parameters["b"]

    return run


def start(*, steps: int = 60, learning_rate: float = 0.05) -> Distill:
    parameters = {"w": BASE * KEEP, "b": torch.zeros(5), "unused": torch.ones(2)}
    return Distill(parameters, {"w": KEEP}, learning_rate=learning_rate, steps=steps)


def test_relative_error_is_squared_distance_over_squared_length() -> None:
    got = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    wanted = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # (0 + 4 + 9 + 4) / (1 + 4)
    assert relative_error(got, wanted).item() == pytest.approx(17 / 5)
    assert relative_error(wanted, wanted).item() == 0.0
    assert relative_error(torch.zeros(2, 2), wanted).item() == pytest.approx(1.0)


def test_relative_error_does_not_depend_on_scale() -> None:
    got, wanted = torch.randn(7, 3), torch.randn(7, 3)
    by_hand = sum((a - b) ** 2 for a, b in zip(got.flatten().tolist(), wanted.flatten().tolist(), strict=True))
    by_hand /= sum(b**2 for b in wanted.flatten().tolist())
    for scale in (1e-6, 1.0, 1e6):
        assert relative_error(got * scale, wanted * scale).item() == pytest.approx(by_hand, rel=1e-4)


def test_relative_error_of_a_silent_block_is_the_squared_error() -> None:
    assert relative_error(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2)).item() == pytest.approx(5.0)


def test_removed_weights_are_exactly_zero_after_each_step() -> None:
    trainer = start()
    for _ in range(10):
        trainer.step(run_on(INPUTS), WANTED)
        w = trainer.finish()["w"]
        assert (w[~KEEP] == 0).all()
        assert (w[KEEP] != 0).all()


def test_masks_hold_even_where_the_start_broke_them() -> None:
    trainer = Distill({"w": BASE, "b": torch.zeros(5)}, {"w": KEEP}, learning_rate=0.1, steps=2)
    assert (trainer.finish()["w"][~KEEP] == 0).all()
    trainer.step(run_on(INPUTS), WANTED)
    assert (trainer.finish()["w"][~KEEP] == 0).all()


def test_removed_weights_move_kept_ones_in_no_way_not_even_by_clipping() -> None:
    # The same block without the removed columns must take the same path. Their gradients would be huge.
    inputs = INPUTS * torch.tensor([1.0, 1.0, 1.0, 50.0, 50.0, 50.0])
    keep = torch.ones(5, 6, dtype=torch.bool)
    keep[:, 3:] = False
    masked = Distill({"w": BASE * keep, "b": torch.zeros(5)}, {"w": keep}, learning_rate=0.05, steps=20)
    narrow = Distill({"w": BASE[:, :3], "b": torch.zeros(5)}, {}, learning_rate=0.05, steps=20)
    for scale in (1.0, 10.0, 0.1, 3.0, 1.0):
        masked.step(run_on(inputs), WANTED * scale)
        narrow.step(run_on(inputs[:, :3]), WANTED * scale)
    assert torch.allclose(masked.finish()["w"][:, :3], narrow.finish()["w"], atol=1e-5)
    assert not torch.allclose(narrow.finish()["w"], BASE[:, :3], atol=0.05)


def test_the_error_falls_to_what_the_best_masked_matrix_leaves() -> None:
    # Inputs in which columns 0 and 1 say the same: what a removed weight did, its neighbour can do.
    inputs = torch.randn(200, 6, generator=torch.Generator().manual_seed(3))
    inputs[:, 1] = inputs[:, 0]
    keep = torch.ones(5, 6, dtype=torch.bool)
    keep[:, 0] = False
    trainer = Distill({"w": BASE * keep, "b": torch.zeros(5)}, {"w": keep}, learning_rate=0.1, steps=300)
    run, wanted = run_on(inputs), inputs @ BASE.T

    before = trainer.error(run, wanted)
    for _ in range(300):
        trainer.step(run, wanted)

    assert before > 0.05
    assert trainer.error(run, wanted) < 1e-4
    assert torch.allclose(trainer.finish()["w"][:, 1], BASE[:, 0] + BASE[:, 1], atol=0.02)


def test_step_returns_the_error_before_it() -> None:
    trainer = start()
    before = trainer.error(run_on(INPUTS), WANTED)
    by_hand = ((INPUTS @ (BASE * KEEP).T - WANTED) ** 2).sum() / (WANTED**2).sum()
    assert before == pytest.approx(by_hand.item(), rel=1e-5)
    assert trainer.step(run_on(INPUTS), WANTED) == before
    assert trainer.error(run_on(INPUTS), WANTED) < before


def test_measuring_changes_nothing() -> None:
    trainer = start()
    trainer.step(run_on(INPUTS), WANTED)
    before = trainer.finish()
    trainer.error(run_on(INPUTS), WANTED)
    after = trainer.finish()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_it_starts_from_a_copy_and_finishes_with_copies() -> None:
    given = {"w": BASE * KEEP, "b": torch.zeros(5)}
    trainer = Distill(given, {"w": KEEP}, learning_rate=0.05, steps=10)
    trainer.step(run_on(INPUTS), WANTED)
    assert torch.equal(given["w"], BASE * KEEP)
    assert not given["b"].any()

    held = trainer.finish()
    kept = {name: value.clone() for name, value in held.items()}
    trainer.step(run_on(INPUTS), WANTED)
    assert all(torch.equal(held[name], kept[name]) for name in held)
    held["w"].zero_()
    assert trainer.finish()["w"].any()
    assert not any(value.requires_grad for value in held.values())


def test_a_parameter_that_the_block_does_not_use_stays() -> None:
    trainer = start()
    for _ in range(3):
        trainer.step(run_on(INPUTS), WANTED)
    assert trainer.finish()["unused"].tolist() == [1.0, 1.0]


def test_the_rate_falls_linearly_to_nothing() -> None:
    trainer = start(steps=4, learning_rate=0.1)
    moves = []
    for _ in range(5):
        before = trainer.finish()["b"]
        trainer.step(run_on(INPUTS), WANTED + 100.0)  # far away: Adam moves by about the rate
        moves.append((trainer.finish()["b"] - before).abs().max().item())
    assert moves[:4] == pytest.approx([0.1, 0.075, 0.05, 0.025], rel=0.05)
    assert moves[4] == 0.0


def test_the_same_start_gives_the_same_bits() -> None:
    ends = []
    for _ in range(2):
        trainer = start()
        for _ in range(5):
            trainer.step(run_on(INPUTS), WANTED)
        ends.append(trainer.finish())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not any(math.isnan(value) for value in ends[0]["w"].flatten().tolist())


def test_it_is_registered() -> None:
    assert TRAINERS.get("distill") is Distill
    with pytest.raises(InputError, match=r"unknown trainer 'destill'; allowed: .*did you mean 'distill'"):
        TRAINERS.get("destill")
