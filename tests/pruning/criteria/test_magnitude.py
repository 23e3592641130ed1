"""l1, l2, random and global l1 against ``torch.nn.utils.prune``, mask for mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from composer.models.family import attention, linear
from composer.pruning.criteria import CRITERIA
from composer.pruning.criteria.random import seed_of
from composer.pruning.global_rates import removals
from composer.scheme.layout import Target
from composer.scheme.shapes import parse_shape
from composer.tensors.ranking import Keep, spread

SHAPES = [(8, 8), (5, 24), (33, 10)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def module_of(weight: Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        module.weight.copy_(weight)
    return module


def mask_of(module: nn.Linear) -> Tensor:
    return dict(module.named_buffers())["weight_mask"].bool()


def target_of(weight: Tensor) -> Target:
    return linear("l", *weight.shape, bias=False, stream="encoder")


def ours(name: str, weight: Tensor, granularity: str, rate: float, **stats: object) -> Tensor:
    shape, target = parse_shape(granularity), target_of(weight)
    (keep,) = Keep(shape, rate)([CRITERIA.get(name)().score(target, [weight], stats, shape)])
    return spread(target, keep, shape)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
def test_single_weights_by_l2_are_those_by_l1(shape: tuple[int, int], rate: float) -> None:
    weight = draw(*shape)
    module = module_of(weight)
    prune.l1_unstructured(module, "weight", amount=rate)
    assert torch.equal(ours("l1", weight, "unstructured", rate), mask_of(module))
    assert torch.equal(ours("l2", weight, "unstructured", rate), mask_of(module))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "n"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize(("granularity", "dim"), [("row", 0), ("column", 1)])
def test_rows_and_columns_are_those_of_torch(
    name: str, n: int, granularity: str, dim: int, shape: tuple[int, int], rate: float
) -> None:
    weight = draw(*shape, seed=1)
    module = module_of(weight)
    prune.ln_structured(module, "weight", amount=rate, n=n, dim=dim)
    assert torch.equal(ours(name, weight, granularity, rate), mask_of(module))


def rowwise(values: Tensor, amount: int) -> Tensor:
    """torch's l1 mask of each row by itself."""
    masks = []
    for row in values:
        module = module_of(row[None])
        prune.l1_unstructured(module, "weight", amount=amount)
        masks.append(mask_of(module))
    return torch.cat(masks)


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_rows_by_themselves_and_groups_are_those_of_torch(name: str) -> None:
    weight = draw(6, 24, seed=2)
    for rate in (0.25, 0.5, 0.75):
        assert torch.equal(ours(name, weight, "per-row", rate), rowwise(weight, int(24 * rate)))
    for n, m in [(2, 4), (4, 8), (1, 4), (1, 3), (5, 6)]:
        wanted = rowwise(weight.reshape(-1, m), m - n).reshape(6, 24)
        assert torch.equal(ours(name, weight, f"{n}:{m}", 1 - n / m), wanted)


NEURONS = [draw(12, 20, seed=3), draw(12, 20, seed=4), draw(20, 12, seed=5)]
"""A first projection, its gate and a second one: 12 neurons."""
HEADS = [draw(18, 10, seed=seed) for seed in (6, 7, 8)]
"""Query, key and value: 6 heads of 3 rows."""


def feed_forward() -> Target:
    named = zip(("up", "gate", "down"), NEURONS, strict=True)
    projections = [linear(p, *w.shape, bias=False, stream="encoder").projections[0] for p, w in named]
    return Target("up", "feed_forward", tuple(projections), 12)


def attention_of_six() -> Target:
    return attention("a", ("q", "k", "v"), width=10, inner=18, heads=6, bias=False, stream="encoder")


def neurons_of(first: Tensor, gate: Tensor, second: Tensor) -> nn.Linear:
    """One row for all weights of a neuron."""
    return module_of(torch.cat([first, gate, second.T], 1))


def heads_of(*weights: Tensor) -> nn.Linear:
    """One row for all weights of a head."""
    return module_of(torch.cat([w.reshape(6, -1) for w in weights], 1))


def blocks_of(weight: Tensor) -> nn.Linear:
    """One row for each block of 3 rows and 4 columns."""
    return module_of(weight.unfold(0, 3, 3).unfold(1, 4, 4).reshape(-1, 12))


def over_blocks(mask: Tensor) -> Tensor:
    """What is kept of 4 x 5 blocks as a mask of their 12 x 20 weights."""
    return mask[:, 0].reshape(4, 5).repeat_interleave(3, 0).repeat_interleave(4, 1)


def kept_units(
    name: str, target: Target, weights: list[Tensor], granularity: str, rate: float, **stats: object
) -> Tensor:
    shape = parse_shape(granularity)
    (keep,) = Keep(shape, rate)([CRITERIA.get(name)().score(target, weights, stats, shape)])
    return keep


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("name", "n"), [("l1", 1), ("l2", 2)])
def test_blocks_and_neurons_are_those_of_torch(name: str, n: int, rate: float) -> None:
    blocks = blocks_of(NEURONS[0])
    prune.ln_structured(blocks, "weight", amount=rate, n=n, dim=0)
    assert torch.equal(ours(name, NEURONS[0], "3x4", rate), over_blocks(mask_of(blocks)))

    neurons = neurons_of(*NEURONS)
    prune.ln_structured(neurons, "weight", amount=rate, n=n, dim=0)
    assert torch.equal(kept_units(name, feed_forward(), NEURONS, "neuron", rate), mask_of(neurons)[:, 0])


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
@pytest.mark.parametrize(("name", "n"), [("l1", 1), ("l2", 2)])
def test_heads_are_those_of_torch(name: str, n: int, rate: float) -> None:
    heads = heads_of(*HEADS)
    prune.ln_structured(heads, "weight", amount=rate, n=n, dim=0)
    assert torch.equal(kept_units(name, attention_of_six(), HEADS, "head", rate), mask_of(heads)[:, 0])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
def test_chance_is_that_of_torch_after_the_same_seed(shape: tuple[int, int], rate: float) -> None:
    weight = draw(*shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(3, "l"))
        module = module_of(weight)
        torch.manual_seed(seed_of(3, "l"))
        prune.random_unstructured(module, "weight", amount=rate)
    assert torch.equal(ours("random", weight, "unstructured", rate, seed=3), mask_of(module))
    for granularity, dim in [("row", 0), ("column", 1)]:
        module = module_of(weight)
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(3, "l"))
            prune.random_structured(module, "weight", amount=rate, dim=dim)
        assert torch.equal(ours("random", weight, granularity, rate, seed=3), mask_of(module))


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.9])
def test_chance_in_heads_neurons_and_blocks_is_that_of_torch_after_the_same_seed(rate: float) -> None:
    def drawn(path: str, module: nn.Linear) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(3, path))
            prune.random_structured(module, "weight", amount=rate, dim=0)
        return mask_of(module)

    heads = kept_units("random", attention_of_six(), HEADS, "head", rate, seed=3)
    assert torch.equal(heads, drawn("a", heads_of(*HEADS))[:, 0])
    neurons = kept_units("random", feed_forward(), NEURONS, "neuron", rate, seed=3)
    assert torch.equal(neurons, drawn("up", neurons_of(*NEURONS))[:, 0])
    blocks = ours("random", NEURONS[0], "3x4", rate, seed=3)
    assert torch.equal(blocks, over_blocks(drawn("l", blocks_of(NEURONS[0]))))


def test_chance_differs_by_seed_and_target_and_needs_the_seed() -> None:
    random, weight = CRITERIA.get("random")(), draw(6, 6)
    scores = [
        random.score(linear(path, 6, 6, bias=False, stream="encoder"), [weight], {"seed": seed})
        for path, seed in [("a", 0), ("b", 0), ("a", 1), ("a", 0)]
    ]
    assert not torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])
    assert torch.equal(scores[0], scores[3])
    with pytest.raises(ValueError, match=r"l: criterion 'random' needs the statistic 'seed'; got \[\]"):
        random.score(target_of(weight), [weight], {})


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.8])
def test_one_threshold_over_all_is_that_of_torch(rate: float) -> None:
    weights = [draw(*shape, seed=i) * (i + 1) for i, shape in enumerate(SHAPES)]
    modules = [module_of(weight) for weight in weights]
    prune.global_unstructured([(m, "weight") for m in modules], pruning_method=prune.L1Unstructured, amount=rate)
    total = sum(w.numel() for w in weights)

    counts = removals([[w.abs()] for w in weights], round(rate * total))

    assert sum(counts) == round(rate * total)
    for weight, module, count in zip(weights, modules, counts, strict=True):
        assert torch.equal(ours("global_l1", weight, "global", count / weight.numel()), mask_of(module))


def test_ties_under_one_threshold_go_by_the_order_of_targets() -> None:
    ones = [[torch.ones(2, 2)], [torch.ones(1, 3), torch.ones(2, 1)], [torch.ones(4, 1)]]
    assert removals(ones, 7) == [4, 3, 0]
    assert removals(ones, 0) == [0, 0, 0]
    assert removals(ones, 13) == [4, 5, 4]


def test_heads_by_l2_are_the_norms_of_their_rows() -> None:
    weights = [draw(12, 5, seed=seed) for seed in range(3)]
    target = attention("a", ("q", "k", "v"), width=5, inner=12, heads=4, bias=False, stream="encoder")
    scores = CRITERIA.get("l2")().score(target, weights, {})
    for head in range(4):
        rows = torch.cat([w[head * 3 : head * 3 + 3].flatten() for w in weights])
        assert scores[head].item() == pytest.approx(rows.norm().item(), rel=1e-6)


@pytest.mark.parametrize(("name", "n"), [("l1", 1), ("l2", 2)])
def test_blocks_by_their_norm(name: str, n: int) -> None:
    weight = draw(6, 8, seed=4)
    scores = CRITERIA.get(name)().score(target_of(weight), [weight], {}, parse_shape("3x4"))
    assert scores.shape == (2, 2)
    for i in range(2):
        for j in range(2):
            block = weight[i * 3 : i * 3 + 3, j * 4 : j * 4 + 4]
            assert scores[i, j].item() == pytest.approx(block.norm(p=n).item(), rel=1e-6)


def test_small_weights_are_not_squared_into_ties() -> None:
    weight = torch.tensor([[3e-30, 1e-30, 2e-30]])
    assert ours("l2", weight, "unstructured", 1 / 3).tolist() == [[True, False, True]]
