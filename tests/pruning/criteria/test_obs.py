"""The brain surgeon's scores: keeping by rank must give the stops of its own greedy passes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import composer
from composer.calibration.gram import Gram
from composer.library.store import Library
from composer.models.family import attention, linear
from composer.pruning.criteria.l1 import L1
from composer.pruning.criteria.obs import DAMPING, Obs, head_order
from composer.scheme.layout import Target
from composer.tensors.brain_surgeon import obs_groups
from composer.tensors.least_squares import masked_least_squares, relative_output_error, with_bias
from composer.tensors.ranking import keep_by_rank
from tests.reference import closed_form

RATES = (0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.99)


def layer(rows: int, columns: int, *, seed: int, bias: bool = False) -> tuple[Tensor, Gram]:
    """``W`` (float32) and the moments of inputs that depend on each other; with a bias, of a mean other than 0."""
    draw = torch.Generator().manual_seed(seed)
    X = torch.randn(4 * columns, columns, generator=draw) @ (
        torch.eye(columns) + torch.rand(columns, columns, generator=draw)
    )
    if bias:
        X = torch.cat([X + 3.0, torch.ones(len(X), 1)], 1)
    return torch.randn(rows, columns, generator=draw), Gram((X.T @ X).double(), len(X), bias)


def heads_target(heads: int, size: int, width: int) -> Target:
    return attention("a", ("q", "k", "v"), width=width, inner=heads * size, heads=heads, bias=True, stream="encoder")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("heads", [1, 4, 6])
def test_heads_kept_by_rank_are_those_of_the_greedy_pass(heads: int, bias: bool) -> None:
    weight, gram = layer(10, heads * 3, seed=heads, bias=bias)
    target = heads_target(heads, 3, 10)
    unused = [torch.randn(heads * 3, 10) for _ in range(3)]

    scores = Obs().score(target, unused, {"gram": [gram] * 3, "out": (weight, gram)})

    assert scores.shape == (heads,)
    augmented = with_bias(weight, torch.ones(10) if bias else None)[0]
    groups = torch.arange(heads * 3).reshape(heads, 3)
    stops = obs_groups(augmented, gram.matrix, groups, range(heads + 1), damping=DAMPING).snapshots
    for rate in RATES:
        assert torch.equal(keep_by_rank(scores, rate), stops[round(rate * heads)].keep)


def test_heads_go_in_the_order_of_solving_anew_for_every_candidate() -> None:
    weight, gram = layer(7, 12, seed=3)
    A, _ = closed_form.damped(gram.matrix.numpy(), DAMPING)
    order, _ = closed_form.greedy_groups(closed_form.array(weight), A, torch.arange(12).reshape(6, 2).tolist(), 6)
    assert head_order(weight, gram, 6).argsort().tolist() == order


def test_a_head_that_says_what_another_says_goes_before_a_small_one_that_nothing_can_replace() -> None:
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(200, 6, generator=draw)
    X[:, 2:4] = X[:, :2] + 0.01 * torch.randn(200, 2, generator=draw)
    weight = torch.ones(3, 6)
    weight[:, 4:] = 0.5
    assert head_order(weight, Gram(X.T @ X, 200), 3)[2] == 1  # one of the two alike is enough, but one is needed
    weights = [torch.cat([torch.ones(4, 3), 0.5 * torch.ones(2, 3)]) for _ in range(3)]
    assert L1().score(heads_target(3, 2, 3), weights, {}).argmin() == 2


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1, exclude_max=True), st.booleans(), st.integers(0, 10**6))
def test_counts_are_exact_and_masks_nested(rows: int, columns: int, rate: float, bias: bool, seed: int) -> None:
    weight, gram = layer(rows, columns, seed=seed, bias=bias)
    scores = Obs().score(linear("l", rows, columns, bias=bias, stream="encoder"), [weight], {"gram": [gram]})
    assert sorted(scores.flatten().tolist()) == list(range(rows * columns))
    keep = keep_by_rank(scores, rate)
    assert keep.shape == (rows, columns)
    assert (~keep).sum() == round(rate * rows * columns)
    assert (keep <= keep_by_rank(scores, rate / 2)).all()


def test_the_first_weights_to_go_have_the_lowest_saliency() -> None:
    weight, gram = layer(8, 16, seed=1)
    scores = Obs().score(linear("l", 8, 16, bias=False, stream="encoder"), [weight], {"gram": [gram]})
    A, strength = closed_form.damped(closed_form.array(gram.matrix), DAMPING)
    cheapest = 1 / np.diag(np.linalg.inv(A)) - strength
    saliency = weight.double().square() * torch.from_numpy(np.sqrt(np.diag(A - strength * np.eye(16)) * cheapest))
    first = round(0.1 * weight.numel())  # one round
    assert torch.equal(keep_by_rank(scores, first / weight.numel()), keep_by_rank(saliency, first / weight.numel()))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rate", [0.5, 0.7, 0.8])
def test_after_repair_it_leaves_less_error_than_magnitude(rate: float, bias: bool) -> None:
    weight, gram = layer(40, 60, seed=5, bias=bias)
    target = linear("l", 40, 60, bias=bias, stream="encoder")
    errors = []
    for criterion in (Obs(), L1()):
        keep = keep_by_rank(criterion.score(target, [weight], {"gram": [gram]}), rate)  # type: ignore[dict-item]
        W, mask = with_bias(weight, torch.zeros(40) if bias else None, keep)
        repaired, _ = masked_least_squares(W, gram.matrix, mask, damping=DAMPING)
        errors.append(relative_output_error(W, repaired, gram.matrix))
    assert errors[0] < 0.8 * errors[1]


def test_inputs_without_a_signal_go_first() -> None:
    weight, gram = layer(6, 10, seed=2)
    gram.matrix[:, 4] = gram.matrix[4] = 0.0
    scores = Obs().score(linear("l", 6, 10, bias=False, stream="encoder"), [weight], {"gram": [gram]})
    assert not keep_by_rank(scores, 0.1)[:, 4].any()


def test_what_it_needs_is_named() -> None:
    assert (Obs.name, Obs.needs) == ("obs", frozenset({"gram"}))
    weight, gram = layer(4, 4, seed=0)
    with pytest.raises(ValueError, match=r"a: criterion 'obs' needs the statistic 'out'; got \['gram'\]"):
        Obs().score(heads_target(2, 2, 4), [weight] * 3, {"gram": [gram] * 3})
    with pytest.raises(ValueError, match=r"l: criterion 'obs' needs the statistic 'gram'; got \[\]"):
        Obs().score(linear("l", 4, 4, bias=False, stream="encoder"), [weight], {})


def test_neurons_go_in_the_greedy_order_of_the_second_projection() -> None:
    weight, gram = layer(7, 10, seed=4)
    first, _ = layer(10, 5, seed=5)
    projections = tuple(
        linear(name, *shape, bias=False, stream="encoder").projections[0]
        for name, shape in [("up", (10, 5)), ("down", (7, 10))]
    )
    whole = Target("up", "feed_forward", projections, 10)

    scores = Obs().score(whole, [first, weight], {"gram": [gram, gram]})

    A, _ = closed_form.damped(gram.matrix.numpy(), DAMPING)
    order, _ = closed_form.greedy_groups(closed_form.array(weight), A, [[j] for j in range(10)], 10)
    assert scores.argsort().tolist() == order


@pytest.mark.parametrize("size", [1, 3])
def test_the_greedy_pass_is_masked_least_squares_on_its_final_mask(size: int) -> None:
    weight, gram = layer(8, 24, seed=6)
    weight, groups = weight.double(), torch.arange(24).reshape(-1, size)
    stop = obs_groups(weight, gram.matrix, groups, [12 // size], damping=DAMPING).snapshots[12 // size]
    mask = stop.keep.repeat_interleave(size).expand(8, 24)
    A, _ = closed_form.damped(gram.matrix.numpy(), DAMPING)
    wanted = closed_form.masked_rows(weight.numpy(), A, mask.numpy())
    assert np.abs(stop.weight.numpy() - wanted).max() < 1e-8


def test_a_criterion_that_looks_at_the_loss_takes_what_obs_takes_where_all_moments_do(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path
) -> None:
    conf = {"*.attention": 0.5, "*.lin1": {"rate": 0.5, "granularity": "neuron"}}

    def kept(criterion: str, metric: str) -> dict[str, Tensor]:
        folder = tmp_path / f"{criterion}-{metric}"
        named = {"model": str(distilbert_folder), "data": str(classification_data), "folder": str(folder)}
        how = {"criterion": criterion, "metric": metric, "calibration_size": 16}
        recipe = composer.load_recipe(given=named | how, file=False)
        folder.mkdir()
        (folder / "conf.json").write_text(json.dumps([conf]))
        composer.generate_scheme(recipe)
        library = Library(composer.prune(recipe).output)
        found = [library.get(address) for address in library.addresses()]
        return {name: mask for one in found for name, mask in one.masks.items()}

    plain, of_loss, wanted = kept("obs", "plain"), kept("obs_loss", "plain"), kept("obs", "loss")
    assert of_loss.keys() == wanted.keys() > set()
    assert all(torch.equal(of_loss[name], wanted[name]) for name in wanted)
    assert any(not torch.equal(of_loss[name], plain[name]) for name in plain)
