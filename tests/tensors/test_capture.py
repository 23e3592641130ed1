"""Blocks seen from outside: what is recorded, and that a block run by itself gives it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composer.models.folder import BaseModel
from composer.scheme.layout import LEVELS, Block
from composer.tensors.capture import owned, recording, run_block
from composer.tensors.forward import real_rows
from tests.reference import residual

Folder = Callable[[str], Path]
NAMES = [
    *("t5", "gated", "mt5", "distilbert", "bert", "deberta"),
    *("bart", "pegasus", "gpt2", "llama", "opt", "opt-post"),
]
TEXTS = ["the old dog sees a cat", "a man", "the small boy likes the red film very"]


@pytest.fixture(scope="module", params=NAMES)
def base(request: pytest.FixtureRequest, model_folder: Folder) -> BaseModel:
    return BaseModel(model_folder(request.param))


@pytest.fixture(scope="module")
def model(base: BaseModel) -> nn.Module:
    return base.load().requires_grad_(False)


@pytest.fixture(scope="module")
def batch(base: BaseModel) -> dict[str, Tensor]:
    """Three texts of different lengths, padded; decoders also get padded labels."""
    return make_batch(base, TEXTS, TEXTS[::-1])


def make_batch(base: BaseModel, texts: list[str], targets: list[str]) -> dict[str, Tensor]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.folder)

    def pad(lines: list[str]) -> Any:
        return tokenizer(lines, padding=True, return_tensors="pt")

    given = pad(texts)
    made = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    if {"encoder", "decoder"} == {block.stream for block in base.layout.blocks}:
        labels = pad(targets)
        made["labels"] = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
    assert not made["attention_mask"].all()
    return made


def real(batch: dict[str, Tensor], block: Block) -> Tensor:
    if block.stream == "decoder" and "labels" in batch:
        return batch["labels"] != -100
    return batch["attention_mask"].bool()


def runnable(base: BaseModel) -> list[Block]:
    """All blocks but attention leaves, which have three outputs and are never tuned."""
    return [
        block
        for block in base.layout.blocks
        if block.level != "module" or base.layout.target(block.path).kind == "linear"
    ]


def close(got: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(got, wanted, atol=1e-5 * max(1.0, wanted.abs().max().item()))


def test_every_block_run_by_itself_gives_what_was_recorded(
    base: BaseModel, model: nn.Module, batch: dict[str, Tensor]
) -> None:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    with recording(model, runnable(base)) as record:
        with record.listening():
            model(**batch)
        for block in runnable(base):
            arguments, wanted = record.of(block)
            own = {name: parameters[name].clone() for name in owned(parameters, block)}
            got = run_block(modules, block, own, arguments)
            assert got.shape == wanted.shape
            got, wanted = (real_rows(states, real(batch, block), block.path) for states in (got, wanted))
            assert wanted.abs().max() > 1e-3, block.path
            assert close(got, wanted), (block.level, block.path)


@pytest.mark.parametrize("level", LEVELS)
def test_blocks_of_one_level_recorded_alone_give_the_same(
    base: BaseModel, model: nn.Module, batch: dict[str, Tensor], level: str
) -> None:
    blocks = [block for block in runnable(base) if block.level == level]
    with recording(model, runnable(base)) as together, together.listening():
        model(**batch)
    for block in blocks:
        with recording(model, [block]) as alone, alone.listening():
            model(**batch)
        assert torch.equal(alone.of(block)[1], together.of(block)[1])


def test_what_a_block_adds_is_its_output_minus_its_input(
    base: BaseModel, model: nn.Module, batch: dict[str, Tensor]
) -> None:
    wanted = residual.added(model, base.layout.family, lambda: model(**batch))
    blocks = [block for block in base.layout.blocks if block.level != "module"]
    assert {(block.level, block.path) for block in blocks} == set(wanted)
    with recording(model, blocks) as record, record.listening():
        model(**batch)
    for block in blocks:
        rows = real(batch, block)
        recorded = real_rows(record.of(block)[1], rows, block.path)
        assert close(recorded, wanted[block.level, block.path][rows]), block.path


def test_a_linear_leaf_gives_the_modules_output(base: BaseModel, model: nn.Module, batch: dict[str, Tensor]) -> None:
    leaves = [block for block in runnable(base) if block.level == "module"]
    seen = residual.outputs(model, [block.path for block in leaves], lambda: model(**batch))
    with recording(model, leaves) as record, record.listening():
        model(**batch)
    for block in leaves:
        assert torch.equal(record.of(block)[1], seen[block.path])


def test_running_a_block_disturbs_neither_record_nor_model(
    base: BaseModel, model: nn.Module, batch: dict[str, Tensor]
) -> None:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    before = {name: p.clone() for name, p in parameters.items()}
    with recording(model, runnable(base)) as record:
        with record.listening():
            model(**batch)
        kept = {(b.level, b.path): record.of(b)[1].clone() for b in runnable(base)}
        inputs = {path: residual.flat(arguments) for path, arguments in record.arguments.items()}
        copies = {path: [t.clone() for t in tensors] for path, tensors in inputs.items()}
        for block in runnable(base):
            zeros = {name: torch.zeros_like(parameters[name]) for name in owned(parameters, block)}
            run_block(modules, block, zeros, record.of(block)[0])
        for block in runnable(base):
            assert torch.equal(record.of(block)[1], kept[block.level, block.path]), block.path
        for path, tensors in inputs.items():
            assert all(torch.equal(a, b) for a, b in zip(tensors, copies[path], strict=True)), path
    assert all(torch.equal(parameters[name], before[name]) for name in before)


def test_gradients_reach_every_parameter_that_can_change_the_output(
    base: BaseModel, model: nn.Module, batch: dict[str, Tensor]
) -> None:
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    with recording(model, runnable(base)) as record, record.listening():
        model(**batch)
    for block in runnable(base):
        own = {name: parameters[name].clone().requires_grad_(True) for name in owned(parameters, block)}
        got = run_block(modules, block, own, record.of(block)[0])
        real_rows(got, real(batch, block), block.path).pow(2).sum().backward()
        without = {name for name, p in own.items() if p.grad is None or not p.grad.any()}
        # A post-norm layer is compared before its last norm; a key's bias shifts all scores of a query alike.
        allowed = {n for n in own if block.tap and n.startswith(f"{block.tap}.")}
        keys = ("k_lin.bias", "key.bias", "key_proj.bias", "k_proj.bias")
        assert {n for n in without if not n.endswith(keys)} == allowed, block.path
    assert all(p.grad is None for p in parameters.values())


def test_a_block_owns_the_parameters_below_it_but_no_shared_ones(base: BaseModel, model: nn.Module) -> None:
    names = [name for name, _ in model.named_parameters()]
    for block in base.layout.at("layer"):
        below = {n for n in names if n.startswith(f"{block.path}.") and "relative_attention_bias" not in n}
        assert set(owned(names, block)) == below
    for block in base.layout.blocks:
        targets = {p.weight for t in block.targets for p in base.layout.target(t).projections}
        assert targets <= set(owned(names, block))
    layers = [set(owned(names, block)) for block in base.layout.at("layer")]
    assert sum(map(len, layers)) == len(set().union(*layers))


def test_nothing_is_recorded_but_while_listening(base: BaseModel, model: nn.Module, batch: dict[str, Tensor]) -> None:
    with recording(model, runnable(base)) as record:
        model(**batch)
        assert not record.arguments
        assert not record.results
        with record.listening():
            model(**batch)
        held = {path: result.clone() for path, result in record.results.items()}
        turned = make_batch(base, TEXTS[::-1], TEXTS)
        model(**turned)
        assert all(torch.equal(record.results[path], held[path]) for path in held)


def test_hooks_are_gone_afterwards(base: BaseModel, model: nn.Module) -> None:
    def fail() -> None:
        with recording(model, runnable(base)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_padding_does_not_reach_real_tokens(base: BaseModel, model: nn.Module, batch: dict[str, Tensor]) -> None:
    blocks = [block for block in base.layout.blocks if block.level == "layer"]
    with recording(model, blocks) as record:
        with record.listening():
            model(**batch)
        padded = {b.path: record.of(b)[1][1][real(batch, b)[1]] for b in blocks}
        one = {name: value[1:2, : value[1].ne(-100).sum()] for name, value in batch.items()}
        length = int(batch["attention_mask"][1].sum())
        one["input_ids"], one["attention_mask"] = (
            one["input_ids"][:, :length],
            one["attention_mask"][:, :length],
        )
        with record.listening():
            model(**one)
        for block in blocks:
            assert torch.allclose(record.of(block)[1][0], padded[block.path], atol=1e-4), block.path
