"""l1 against ``torch.nn.utils.prune`` and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from composer.errors import InputError
from composer.models.family import attention, linear
from composer.pruning.criteria import CRITERIA
from composer.pruning.criteria.l1 import L1
from composer.scheme.layout import Target
from composer.tensors import masks
from composer.tensors.ranking import keep_by_rank
from tests.reference import pruning


def without_ties(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random signs, and magnitudes of which no two are equal."""
    generator = torch.Generator().manual_seed(seed)
    count = int(np.prod(shape))
    magnitudes = (torch.randperm(count, generator=generator) + 1.0) / count
    signs = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    return (magnitudes * signs).reshape(shape)


def attention_target(heads: int, size: int, width: int) -> Target:
    return attention("a", ("q", "k", "v"), width=width, inner=heads * size, heads=heads, bias=True, stream="encoder")


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("shape", [(1, 7), (8, 8), (5, 24), (33, 10)])
def test_linear_masks_are_those_of_torch(shape: tuple[int, int], rate: float) -> None:
    weight = without_ties(*shape, seed=shape[0])
    target = linear("l", *shape, bias=False, stream="encoder")

    keep = keep_by_rank(L1().score(target, [weight], {}), rate)

    assert torch.equal(keep, pruning.l1_linear(weight, rate))
    assert (~keep).sum() == round(rate * weight.numel())


@pytest.mark.parametrize(("heads", "size", "width"), [(1, 4, 6), (4, 4, 12), (8, 2, 5), (12, 3, 16)])
def test_head_scores_are_those_of_numpy(heads: int, size: int, width: int) -> None:
    weights = [without_ties(heads * size, width, seed=seed) * (seed + 1) for seed in range(3)]
    scores = L1().score(attention_target(heads, size, width), weights, {})
    assert scores.shape == (heads,)
    np.testing.assert_allclose(scores.numpy(), pruning.head_scores(weights, heads), rtol=1e-5)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.7])
def test_the_weakest_heads_go(rate: float) -> None:
    weights = [without_ties(16, 12, seed=seed) for seed in range(3)]
    target = attention_target(4, 4, 12)
    keep = keep_by_rank(L1().score(target, weights, {}), rate)
    assert (~keep).nonzero().flatten().tolist() == pruning.lowest_heads(weights, 4, rate)
    assert masks.expand(target, keep)["a.k.weight"].sum() == keep.sum() * 4 * 12


def test_every_projection_counts() -> None:
    weights = [torch.ones(6, 2) for _ in range(3)]
    for projection, head in enumerate((2, 0, 1)):
        weights[projection][head * 2 : head * 2 + 2] += float(projection)
    target = attention_target(3, 2, 2)
    # projection 1 raises head 0 by 4, projection 2 raises head 1 by 8
    assert L1().score(target, weights, {}).tolist() == [16.0, 20.0, 12.0]


def test_signs_do_not_count_and_weights_stay_as_they_are() -> None:
    weight = torch.tensor([[-3.0, 2.0], [0.0, -0.5]])
    target = linear("l", 2, 2, bias=False, stream="encoder")
    scores = L1().score(target, [weight], {})
    assert scores.tolist() == [[3.0, 2.0], [0.0, 0.5]]
    assert weight.tolist() == [[-3.0, 2.0], [0.0, -0.5]]


def test_it_needs_no_statistics_and_is_registered() -> None:
    criterion = CRITERIA.get("l1")()
    assert isinstance(criterion, L1)
    assert (criterion.name, criterion.needs) == ("l1", frozenset())
    with pytest.raises(InputError, match=r"unknown criterion 'l3'; allowed: .*l1"):
        CRITERIA.get("l3")
