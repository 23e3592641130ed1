"""Masks: what a kept unit means for parameters, and that a removed weight stays exactly zero."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from composer.models.family import attention, linear
from composer.scheme.layout import Layout, Projection, Target
from composer.tensors import masks
from composer.tensors.mask_holder import MaskHolder


def attention_target(*, bias: bool = True) -> Target:
    return attention(
        "a", ("q", "k", "v"), width=3, inner=8, heads=4, bias=bias, stream="decoder", memory=(5, "encoder")
    )


@given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_removed_head_takes_its_rows_of_q_k_and_v_with_their_biases(keep: list[bool]) -> None:
    made = masks.expand(attention_target(), torch.tensor(keep))

    assert set(made) == {f"a.{name}.{what}" for name in "qkv" for what in ("weight", "bias")}
    for name, width in {"q": 3, "k": 5, "v": 5}.items():
        for row in range(8):
            assert made[f"a.{name}.weight"][row].tolist() == [keep[row // 2]] * width
            assert made[f"a.{name}.bias"][row].item() == keep[row // 2]


def test_projections_without_bias_have_no_bias_mask() -> None:
    made = masks.expand(attention_target(bias=False), torch.ones(4, dtype=torch.bool))
    assert set(made) == {"a.q.weight", "a.k.weight", "a.v.weight"}


def test_a_linear_targets_mask_is_its_kept_units_and_spares_the_bias() -> None:
    keep = torch.tensor([[True, False, True], [False, False, True]])
    made = masks.expand(linear("l", 2, 3, bias=True, stream="encoder"), keep)
    assert set(made) == {"l.weight"}
    assert torch.equal(made["l.weight"], keep)


def test_modules_that_store_in_by_out_get_a_transposed_mask() -> None:
    target = linear("l", 2, 3, bias=False, stream="encoder")
    (projection,) = target.projections
    turned = replace(target, projections=(replace(projection, transposed=True),))
    keep = torch.tensor([[True, False, True], [False, False, True]])
    assert masks.expand(turned, keep)["l.weight"].tolist() == [[True, False], [False, False], [True, True]]


def fused_target(*, transposed: bool) -> Target:
    """q, k and v on top of each other in one module that reads 3: two heads of two rows each."""
    parts = [Projection("a.c", 4, 3, True, "decoder", transposed, (4 * i, 12)) for i in range(3)]
    return Target("a", "attention", tuple(parts), 2)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_removed_head_takes_its_rows_of_each_part_of_a_fused_weight(transposed: bool) -> None:
    target = fused_target(transposed=transposed)
    made = masks.expand(target, torch.tensor([False, True]))
    assert set(made) == {"a.c.weight", "a.c.bias"}
    rows = [False, False, True, True] * 3
    assert made["a.c.bias"].tolist() == rows
    weight = made["a.c.weight"].T if transposed else made["a.c.weight"]
    assert weight.tolist() == [[row] * 3 for row in rows]
    assert made["a.c.weight"].is_contiguous()

    stored = torch.arange(36.0).reshape(12, 3)
    seen = [p.of(stored.T.contiguous() if transposed else stored) for p in target.projections]
    assert torch.equal(torch.cat(seen), stored)
    assert target.parameters == 36


def test_zeros_of_a_fused_weight_are_counted_once() -> None:
    target = fused_target(transposed=True)
    model = nn.ModuleDict({"a": nn.ModuleDict({"c": Conv1D(12, 3)})})
    parameters = dict(model.named_parameters())
    masks.apply(parameters, masks.expand(target, torch.tensor([True, False])))
    assert masks.zeros_per_target(model, Layout("toy", (target,), ())) == {"a": (18, 36)}


@given(st.lists(st.booleans(), min_size=2, max_size=2))
def test_a_removed_group_takes_its_key_and_value_head_and_all_query_heads_that_share_it(keep: list[bool]) -> None:
    target = attention(
        "a", ("q", "k", "v"), width=5, inner=24, heads=6, bias=True, stream="decoder", groups=2
    )  # six query heads of four rows, two key and value heads
    assert (target.heads, target.queries, target.parameters) == (2, 3, (24 + 8 + 8) * 5)
    made = masks.expand(target, torch.tensor(keep))
    assert made["a.q.bias"].tolist() == [keep[head // 3] for head in range(6) for _ in range(4)]
    for name in "kv":
        assert made[f"a.{name}.bias"].tolist() == [keep[head] for head in range(2) for _ in range(4)]
    removed = sum(int((~made[f"a.{name}.weight"]).sum()) for name in "qkv")
    assert removed == target.removed_weights(keep.count(False) / 2)


def test_masks_share_no_memory() -> None:
    made = masks.expand(attention_target(), torch.ones(4, dtype=torch.bool))
    made["a.q.bias"][0] = False
    made["a.q.weight"][0, 0] = False
    assert made["a.k.bias"].all()
    assert made["a.v.weight"].all()
    assert made["a.q.weight"].sum() == 23


@pytest.mark.parametrize("value", [1.0, -2.5, math.nan, math.inf, -math.inf, -0.0])
def test_apply_makes_whatever_was_removed_exactly_zero(value: float) -> None:
    parameter = torch.full((2, 2), value)
    masks.apply({"w": parameter, "other": torch.ones(1)}, {"w": torch.tensor([[True, False], [False, True]])})
    assert parameter[0, 1].item() == parameter[1, 0].item() == 0.0
    assert str(parameter[0, 1].item()) == "0.0"
    kept = parameter[0, 0].item()
    assert kept == value or (math.isnan(kept) and math.isnan(value))


def test_apply_works_on_parameters_in_training() -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.sum().backward()
    masks.apply({"w": parameter}, {"w": torch.tensor([True, False, True])})
    assert parameter.tolist() == [1.0, 0.0, 1.0]
    assert parameter.requires_grad


def training(keep: torch.Tensor) -> tuple[nn.Linear, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    mask = {"weight": keep}
    masks.apply(dict(model.named_parameters()), mask)
    return model, mask


def test_held_masks_gradients_only_of_removed_weights() -> None:
    keep = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    model, mask = training(keep)
    inputs = torch.randn(5, 4)

    model(inputs).pow(2).sum().backward()
    free = model.weight.grad.clone()
    model.zero_grad()
    with MaskHolder(dict(model.named_parameters()), mask):
        model(inputs).pow(2).sum().backward()

    assert torch.equal(model.weight.grad, free * keep)
    assert (free[~keep] != 0).all()
    assert model.bias.grad.abs().sum() > 0


def test_held_ends_with_its_body() -> None:
    keep = torch.zeros(3, 4, dtype=torch.bool)
    model, mask = training(keep)

    def fail() -> None:
        with MaskHolder(dict(model.named_parameters()), mask):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    model(torch.ones(1, 4)).sum().backward()
    assert model.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_held_and_applied_masks_survive_training(optimizer: type[torch.optim.Optimizer]) -> None:
    keep = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)) > 0.5
    model, mask = training(keep)
    stepper = optimizer(model.parameters(), lr=0.1, weight_decay=0.1)  # type: ignore[call-arg]
    with MaskHolder(dict(model.named_parameters()), mask) as holder:
        for _ in range(5):
            stepper.zero_grad()
            model(torch.randn(5, 4)).pow(2).sum().backward()
            stepper.step()
            holder.apply()
            assert model.weight[~keep].tolist() == [0.0] * int((~keep).sum())
    assert not masks.violations(dict(model.named_parameters()), mask)


@pytest.mark.parametrize("value", [1e-45, -1.0, math.nan, math.inf])
def test_violations_name_the_parameters_with_a_removed_weight_that_is_not_zero(value: float) -> None:
    keep = torch.tensor([True, False])
    parameters = {name: torch.tensor([5.0, 0.0]) for name in "abc"}
    assert masks.violations(parameters, dict.fromkeys("abc", keep)) == []
    parameters["b"][1] = value
    assert masks.violations(parameters, dict.fromkeys("abc", keep)) == ["b"]
    assert masks.violations(parameters, {"a": keep, "b": torch.tensor([False, True])}) == ["b"]


def test_zeros_are_counted_per_target_and_without_biases() -> None:
    target = attention_target()
    other = linear("l", 2, 3, bias=True, stream="encoder")
    model = nn.ModuleDict({"a": nn.ModuleDict({n: nn.Linear(w, 8) for n, w in {"q": 3, "k": 5, "v": 5}.items()})})
    model["l"] = nn.Linear(3, 2)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.fill_(1.0)
    masks.apply(parameters, masks.expand(target, torch.tensor([True, False, True, True])))
    with torch.no_grad():
        parameters["l.weight"][0, 1] = -0.0

    counts = masks.zeros_per_target(model, Layout("toy", (target, other), ()))

    assert counts == {"a": (2 * (3 + 5 + 5), 8 * (3 + 5 + 5)), "l": (1, 6)}
