"""Joint tuning: variants put on and taken off exactly, balanced draws, gradients of the shared weights, resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from composer.errors import ModelError, RecipeError
from composer.models.folder import BaseModel
from composer.progress import SILENT, Progress
from composer.tasks import DataOptions, Task, open_task
from composer.tensors.parameters import set_values
from composer.training.distillation import Answers, divergence
from composer.training.hooks import TrainingHooks
from composer.training.joint import Variant, drawn, put_on, tune_joint
from composer.training.own_parts import own_parts
from composer.training.settings import ModelSettings, ModelTuning
from tests.reference.progress import EveryStep, killed_at

SETTINGS = ModelSettings(
    steps=6,
    batch_size=4,
    learning_rate=0.01,
    warmup=0.1,
    weight_decay=0.0,
    clip=1.0,
    evaluations=3,
    seed=0,
    precision="fp32",
)
RUINOUS = 100.0
"""So high a rate that no machine's rounding makes a model better by chance."""
FIRST, SECOND = "encoder.block.0.layer.1.DenseReluDense", "decoder.block.1.layer.2.DenseReluDense"
NORM = "encoder.block.0.layer.1.layer_norm.weight"
"""Has an offset and no mask."""
FINAL = "decoder.final_layer_norm.weight"
"""Scales all logits."""


def bits(tensor: Tensor) -> Tensor:
    """So that 0.0 and -0.0 are two things, and NaN is equal to itself."""
    return tensor.detach().contiguous().view(torch.int32)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(bits(one[name]), bits(other[name])) for name in one)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def by_hand(shared: Mapping[str, Tensor], configuration: Sequence[Variant]) -> dict[str, Tensor]:
    """``(θ + Δ) ∘ M`` of a whole model; differentiable with respect to ``shared``."""
    made = dict(shared)
    for variant in configuration:
        for name in {*variant.offsets, *variant.masks}:
            whole = made[name] + variant.offsets.get(name, torch.zeros(()))
            mask = variant.masks.get(name)
            made[name] = whole if mask is None else torch.where(mask, whole, torch.zeros(()))
    return made


@dataclass
class Seen:
    """Every model that a task's loss was asked of: the batch and all weights, in training or measured."""

    training: list[tuple[Mapping[str, Tensor], dict[str, Tensor]]] = field(default_factory=list)
    measured: list[dict[str, Tensor]] = field(default_factory=list)


class Toy:
    """A tiny T5, and three configurations over two feed-forwards of which the first two share a variant."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.base = BaseModel(folder)
        options = DataOptions(data=str(data), max_source_length=32, max_target_length=16)
        self.task: Task = open_task(options, folder, self.base.config)
        self.train, self.valid = self.task.load("train"), self.task.load("valid")
        self.start = state(self.base.load())
        one, two = self.variant(FIRST, 0.3, 1), self.variant(SECOND, 0.5, 2)
        self.configurations = [
            [one, two],
            [one, self.variant(SECOND, 0.25, 3)],
            [self.variant(FIRST, 0.6, 4), self.variant(SECOND, 0.7, 5)],
        ]

    def variant(self, path: str, rate: float, seed: int) -> Variant:
        """Random masks of both projections; offsets of the second one, and of the norm before the first block."""
        draw = torch.Generator().manual_seed(seed)
        names = [f"{path}.wi.weight", f"{path}.wo.weight"]
        masks = {name: torch.rand(self.start[name].shape, generator=draw) >= rate for name in names}
        weights = {name: torch.where(masks[name], self.start[name], torch.zeros(())) for name in names}
        moved = [names[1], NORM] if path == FIRST else [names[1]]
        for name in moved:
            value = self.start[name]
            value = value + 0.02 * torch.randn(value.shape, generator=draw)
            weights[name] = torch.where(masks[name], value, torch.zeros(())) if name in masks else value
        return Variant.of(weights, masks, self.start)

    def never_kept(self) -> dict[str, Tensor]:
        """Places that every configuration removes."""
        kept: dict[str, Tensor] = {}
        for configuration in self.configurations:
            for variant in configuration:
                for name, mask in variant.masks.items():
                    kept[name] = kept.get(name, torch.zeros_like(mask)) | mask
        return {name: ~mask for name, mask in kept.items()}

    def watched(self) -> tuple[Task, Seen]:
        """The task, and what its loss sees from now on."""
        seen, inner = Seen(), self.task

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

            def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, int]:
                if model.training:
                    seen.training.append((batch, state(model)))
                else:
                    seen.measured.append(state(model))
                return inner.loss(model, batch)

        return Watched(), seen

    def tune(
        self,
        work: Path,
        settings: ModelSettings = SETTINGS,
        *,
        model: nn.Module | None = None,
        task: Task | None = None,
        configurations: int = 3,
        chosen: Sequence[Sequence[Variant]] | None = None,
        patience: int = 99,
        share: float = 0.0,
        times: Sequence[int] | None = None,
        weights: Sequence[str] = (),
        progress: Progress = SILENT,
    ) -> tuple[nn.Module, ModelTuning, list[dict[str, Any]]]:
        model, task = model or self.base.load(), task or self.task
        work.mkdir(exist_ok=True)
        done, each = tune_joint(
            model,
            chosen or self.configurations[:configurations],
            task,
            self.train,
            self.valid,
            settings,
            patience=patience,
            work=work,
            times=times,
            weights=weights,
            answers=Answers(self.base.load(), task, share) if share else None,
            progress=progress,
        )
        return model, done, each


@pytest.fixture(scope="module")
def toy(t5_folder: Path, translation_data: Path) -> Toy:
    return Toy(t5_folder, translation_data)


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # type: ignore[assignment]
    return model


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


@torch.no_grad()
def loss_by_hand(model: nn.Module, toy: Toy, configuration: Sequence[Variant]) -> float:
    """Cross entropy per label of a configuration, one example at a time."""
    made, total, count = by_hand(state(model), configuration), 0.0, 0
    model.eval()
    for feature in toy.valid.features:
        given = {"input_ids": torch.tensor([feature["input_ids"]]), "labels": torch.tensor([feature["labels"]])}
        logits = functional_call(model, made, (), given).logits[0].double().log_softmax(-1)
        chosen = logits[range(len(logits)), given["labels"][0]]
        total, count = total - float(chosen.sum()), count + len(chosen)
    return total / count


# Variants ---------------------------------------------------------------------------------------------------


def elsewhere(toy: Toy) -> nn.Module:
    """A model whose shared weights have moved away from the base model's."""
    model, draw = toy.base.load(), torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


@pytest.mark.parametrize("number", range(3))
def test_what_is_put_on_is_the_sum_under_the_mask_and_comes_off_bit_for_bit(toy: Toy, number: int) -> None:
    model, configuration = elsewhere(toy), toy.configurations[number]
    removed = ~configuration[0].masks[f"{FIRST}.wo.weight"]
    with torch.no_grad():  # whatever stands in a removed place
        dict(model.named_parameters())[f"{FIRST}.wo.weight"].masked_fill_(removed, float("nan"))
        dict(model.named_parameters())[f"{FIRST}.wi.weight"].mul_(-1.0)
    before, parameters = state(model), dict(model.named_parameters())
    held = put_on(parameters, configuration)
    assert same(state(model), by_hand(before, configuration))
    for variant in configuration:
        for name, mask in variant.masks.items():
            assert not bits(parameters[name])[~mask].any(), name
    assert held.keys() == {name for v in configuration for name in (*v.offsets, *v.masks)}
    assert same(held, {name: before[name] for name in held})
    set_values(parameters, held)
    assert same(state(model), before)


def test_gradients_of_what_a_configuration_owns_are_those_of_the_chain_rule(toy: Toy) -> None:
    """Against autograd through the composed weights; others' parts get none, nor do shared biases and norms."""
    model, configuration, name = without_dropout(elsewhere(toy)), toy.configurations[0], f"{FIRST}.wo.weight"
    batch, parameters, masks = toy.task.collate(toy.train.features[:4]), dict(model.named_parameters()), {}
    masks = {key: mask for variant in configuration for key, mask in variant.masks.items()}
    with own_parts(model, 2, [name], replace(SETTINGS, own="lora")) as (parts, frozen):
        assert parts is not None
        assert not frozen
        with torch.no_grad():
            for p in parts.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(5)))
        mine = parts.part(1)
        a, b = (one.clone().requires_grad_(True) for one in mine.factors[name])
        vectors = {key: value.clone().requires_grad_(True) for key, value in mine.vectors.items()}
        composed = by_hand(state(model), configuration)
        composed = {key: composed[key] + vectors.get(key, 0.0) for key in parameters}
        composed[name] = composed[name] + 2.0 * b @ a
        composed = {key: value * masks.get(key, 1.0) for key, value in composed.items()}
        functional_call(model, composed, (), dict(batch)).loss.backward()
        before = put_on(parameters, configuration, mine)
        assert all(torch.allclose(parameters[key], value.detach(), atol=1e-6) for key, value in composed.items())
        toy.task.loss(model, batch)[0].backward()
        for key, mask in masks.items():
            parameters[key].grad.masked_fill_(~mask, 0.0)  # type: ignore[union-attr]
        parts.take_gradients(1, parameters, frozen)
        set_values(parameters, before)
        wanted = [vectors[key].grad for key in parts.names] + [a.grad, b.grad]
        half = len(parts.names)
        got = [p.grad for p in parts.vectors]
        assert not any(got[:half])
        for one, other in zip([*got[half:], parts.a[1].grad, parts.b[1].grad], wanted, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, atol=1e-5)
        assert parts.a[0].grad is None
        assert all(parameters[key].grad is None for key in parts.names)
        assert parameters[name].grad is not None
    assert not hasattr(model, "own_parts")


def test_with_shared_weights_frozen_only_what_is_owned_learns(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, steps=3, evaluations=1, train="biases-norms", own="lora", own_rate=0.05)
    monkeypatch.setattr(toy, "configurations", [*toy.configurations[:2], toy.configurations[0]])
    model, done, _ = toy.tune(tmp_path / "work", settings, weights=[f"{FIRST}.wo.weight"])
    assert done.best_step == 3
    assert same(state(model), state(toy.base.load()))
    assert all(p.requires_grad for p in model.parameters())
    first, second, again = done.own
    assert same(first.tensors(), again.tensors())  # equal configurations are one
    assert first.factors[f"{FIRST}.wo.weight"][1].any()
    assert not same(first.tensors(), second.tensors())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="--own: got 'lora' with several processes; allowed: one"):
        toy.tune(tmp_path / "two", settings)


@pytest.mark.parametrize("number", range(3))
def test_a_variant_says_the_weights_that_the_model_computes_with(toy: Toy, number: int) -> None:
    model = elsewhere(toy)
    shared = state(model)
    put_on(dict(model.named_parameters()), toy.configurations[number])
    for variant in toy.configurations[number]:
        names = [*{**variant.offsets, **variant.masks}, "shared.weight"]
        told = variant.weights(shared, names)
        assert list(told) == names
        assert same(told, {name: state(model)[name] for name in names})
        told["shared.weight"].zero_()  # the caller's own
    assert same(shared, state(elsewhere(toy)))


def test_a_variant_of_weights_that_pruning_alone_has_changed_has_no_offset(toy: Toy) -> None:
    masks = toy.configurations[0][0].masks
    weights = {name: torch.where(mask, toy.start[name], torch.zeros(())) for name, mask in masks.items()}
    variant = Variant.of({**weights, NORM: toy.start[NORM]}, masks, toy.start)
    assert variant.offsets == {}
    assert same(variant.weights(toy.start, list(weights)), weights)


def test_an_offset_is_what_a_block_has_changed_and_zero_where_it_is_masked(toy: Toy) -> None:
    variant = toy.configurations[0][0]
    assert set(variant.offsets) == {f"{FIRST}.wo.weight", NORM}
    mask = variant.masks[f"{FIRST}.wo.weight"]
    gap = variant.offsets[f"{FIRST}.wo.weight"]
    assert not bits(gap)[~mask].any()
    assert gap[mask].abs().mean().item() == pytest.approx(0.02 * math.sqrt(2 / math.pi), rel=0.2)


# Draws ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(0, 1000), st.integers(1, 5), st.integers(1, 4))
def test_every_configuration_is_drawn_once_in_each_round_whatever_the_number_of_processes(
    configurations: int, seed: int, size: int, rounds: int
) -> None:
    steps = configurations * rounds  # then all processes together have made whole rounds
    order = [drawn(configurations, seed, step, rank, size) for step in range(steps) for rank in range(size)]
    for start in range(0, len(order), configurations):
        assert sorted(order[start : start + configurations]) == list(range(configurations))
    # Two processes are one that makes two steps: the order belongs to the seed.
    assert order == [drawn(configurations, seed, step) for step in range(steps * size)]


def test_the_order_of_draws_changes_with_the_seed_and_with_the_round() -> None:
    orders = {tuple(drawn(5, seed, step) for step in range(5)) for seed in range(6)}
    rounds = {tuple(drawn(5, 0, 5 * k + step) for step in range(5)) for k in range(6)}
    assert len(orders) > 3
    assert len(rounds) > 3


# Steps ------------------------------------------------------------------------------------------------------


def test_a_configuration_that_has_more_turns_learns_in_more_steps(toy: Toy, tmp_path: Path) -> None:
    task, seen = toy.watched()
    toy.tune(tmp_path, replace(SETTINGS, steps=6, evaluations=1), task=task, times=[1, 3, 2])

    def fits(composed: Mapping[str, Tensor], number: int) -> bool:
        masks = [item for variant in toy.configurations[number] for item in variant.masks.items()]
        return all(torch.equal(composed[name] != 0, mask & (composed[name] != 0)) for name, mask in masks)

    learnt = [[number for number in range(3) if fits(composed, number)] for _, composed in seen.training]
    assert sorted(learnt) == [[0], [1], [1], [1], [2], [2]]


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_gradients_of_the_shared_weights_are_those_of_the_composed_loss(toy: Toy, share: float, tmp_path: Path) -> None:
    model, base = without_dropout(toy.base.load()), toy.base.load()
    task, seen = toy.watched()
    gradients: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():

        def note(p: Tensor, name: str = name) -> None:
            assert p.grad is not None
            gradients.setdefault(name, []).append(p.grad.clone())

        parameter.register_post_accumulate_grad_hook(note)
    shared = [state(model)]
    toy.tune(
        tmp_path,
        replace(SETTINGS, learning_rate=0.05),
        model=model,
        task=task,
        share=share,
        progress=EveryStep(lambda _: shared.append(state(model))),
    )
    asked = [drawn(3, 0, step) for step in range(6)]
    assert sorted(asked[:3]) == [0, 1, 2]
    assert len(seen.training) == 6
    model.train()
    for step, number in enumerate(asked):
        batch, composed = seen.training[step]
        leaves = {name: value.clone().requires_grad_() for name, value in shared[step].items()}
        made = by_hand(leaves, toy.configurations[number])
        assert same(composed, {name: value.detach() for name, value in made.items()})
        output = functional_call(model, made, (), dict(batch))
        real = batch["labels"] != -100
        loss = nn.functional.cross_entropy(output.logits[real], batch["labels"][real])
        if share:
            with torch.no_grad():
                wanted = base(**batch).logits[real].softmax(-1)
            entropy = torch.distributions.Categorical(probs=wanted).entropy()
            cross = -(wanted * output.logits[real].log_softmax(-1)).sum(-1)
            loss = (1 - share) * loss + share * (cross - entropy).mean()
        loss.backward()
        for name, leaf in leaves.items():
            assert leaf.grad is not None
            torch.testing.assert_close(gradients[name][step], leaf.grad, rtol=1e-3, atol=1e-6, msg=name)
        for variant in toy.configurations[number]:
            for name, mask in variant.masks.items():
                assert gradients[name][step][~mask].abs().max() == 0
                assert gradients[name][step][mask].abs().max() > 0


def test_shared_weights_that_no_configuration_keeps_never_move(toy: Toy, tmp_path: Path) -> None:
    model, nowhere = toy.base.load(), toy.never_kept()
    assert all(0.05 < places.float().mean() < 0.6 for places in nowhere.values())
    moved: list[int] = []

    def check(step: int) -> None:
        now = state(model)
        moved.append(sum(int((now[name] != toy.start[name])[places].sum()) for name, places in nowhere.items()))

    toy.tune(tmp_path, replace(SETTINGS, steps=8), model=model, progress=EveryStep(check))
    assert moved == [0] * 8
    for name, places in nowhere.items():
        assert (state(model)[name] != toy.start[name])[~places].float().mean() > 0.9, name
    assert not torch.equal(state(model)["shared.weight"], toy.start["shared.weight"])  # dense everywhere: shared too


def test_what_is_measured_is_every_configuration_exactly_masked(toy: Toy, tmp_path: Path) -> None:
    model, (task, seen) = toy.base.load(), toy.watched()
    shared = {0: state(model)}

    def note(step: int) -> None:
        shared[step] = state(model)

    _, done, each = toy.tune(tmp_path, model=model, task=task, progress=EveryStep(note))
    assert [row["step"] for row in done.rows] == [0, 2, 4, 6]
    places = [(row["step"], row["configuration"]) for row in each]
    assert places == [(step, number) for step in (0, 2, 4, 6) for number in range(3)]
    assert len(seen.measured) == len(places)  # all of the validation split is one batch
    for (step, number), composed in zip(places, seen.measured, strict=True):
        assert same(composed, by_hand(shared[step], toy.configurations[number]))
        for variant in toy.configurations[number]:
            for name, mask in variant.masks.items():
                assert int((composed[name] == 0).sum()) == int((~mask).sum())
    for row in done.rows:
        losses = [one["valid_loss"] for one in each if one["step"] == row["step"]]
        assert row["valid_loss"] == pytest.approx(sum(losses) / 3)


def test_hooks_are_gone_afterwards(toy: Toy, tmp_path: Path) -> None:
    model, _, _ = toy.tune(tmp_path, replace(SETTINGS, steps=1))
    toy.task.loss(model, toy.task.collate(toy.train.features[:4]))[0].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name, mask in toy.configurations[0][0].masks.items():
        assert gradients[name] is not None
        assert float(gradients[name][~mask].abs().max()) > 0  # type: ignore[index]
    assert not model.training


# The phase --------------------------------------------------------------------------------------------------


def test_all_configurations_learn_and_the_best_mean_is_kept(toy: Toy, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=27, learning_rate=0.02, evaluations=3)
    model, done, each = toy.tune(tmp_path, settings)
    assert done.best_loss == min(row["valid_loss"] for row in done.rows) < 0.8 * done.first_loss
    for number, configuration in enumerate(toy.configurations):
        losses = {row["step"]: row["valid_loss"] for row in each if row["configuration"] == number}
        assert losses[done.best_step] < 0.85 * losses[0]
        assert loss_by_hand(model, toy, configuration) == pytest.approx(losses[done.best_step], rel=1e-4)


def test_a_phase_that_only_gets_worse_ends_with_the_weights_it_started_from(toy: Toy, tmp_path: Path) -> None:
    model, done, each = toy.tune(tmp_path, replace(SETTINGS, learning_rate=RUINOUS))
    starts = [row["valid_loss"] for row in each[:3]]
    assert all(row["valid_loss"] > starts[row["configuration"]] for row in each[3:])
    assert (done.best_step, done.best_loss, done.stays) == (0, done.first_loss, [])
    assert same(state(model), toy.start)
    assert len(each) == 12


def test_a_configuration_that_all_others_make_worse_counts_as_it_began(toy: Toy, tmp_path: Path) -> None:
    spoilt = Variant({FINAL: torch.full_like(toy.start[FINAL], 30.0)}, {})  # any step makes this one better
    model, done, each = toy.tune(
        tmp_path,
        replace(SETTINGS, steps=4, evaluations=4, learning_rate=1.0),
        chosen=[toy.configurations[0], [spoilt]],
    )
    losses = {(row["step"], row["configuration"]): row["valid_loss"] for row in each}
    assert losses[done.best_step, 0] > losses[0, 0]
    assert losses[done.best_step, 1] < losses[0, 1]
    assert done.stays == [0]
    assert done.best_loss == pytest.approx((losses[0, 0] + losses[done.best_step, 1]) / 2)
    assert loss_by_hand(model, toy, [spoilt]) == pytest.approx(losses[done.best_step, 1], rel=1e-4)
    assert done.best_loss == min(row["valid_loss"] for row in done.rows)


@pytest.mark.parametrize(("patience", "steps"), [(1, [0, 1]), (3, [0, 1, 2, 3])])
def test_patience_ends_the_phase_early(toy: Toy, patience: int, steps: list[int], tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=9, evaluations=9, learning_rate=RUINOUS, warmup=0.0)
    made: list[int] = []
    _, done, _ = toy.tune(tmp_path, settings, patience=patience, progress=EveryStep(made.append))
    assert [row["step"] for row in done.rows] == steps
    assert made == steps[1:]


def test_a_phase_that_diverges_ends_with_its_best_weights_and_a_record_that_can_be_written(
    toy: Toy, tmp_path: Path
) -> None:
    model, done, each = toy.tune(tmp_path, replace(SETTINGS, learning_rate=1e30, warmup=0.0))
    assert done.rows[-1]["valid_loss"] is None
    assert math.isfinite(done.best_loss)
    assert all(torch.isfinite(value).all() for value in state(model).values())
    assert json.loads(json.dumps(each, allow_nan=False)) == each
    assert {row["valid_loss"] for row in each if row["step"] == 6} == {None}


def test_a_start_without_a_finite_loss_is_refused(toy: Toy, tmp_path: Path) -> None:
    model = toy.base.load()
    with torch.no_grad():
        dict(model.named_parameters())[NORM].fill_(float("nan"))
    with pytest.raises(ModelError, match="validation loss before any step is nan"):
        toy.tune(tmp_path, model=model)


def test_a_killed_phase_goes_on_to_the_same_bytes(toy: Toy, tmp_path: Path) -> None:
    whole, undisturbed, each = toy.tune(tmp_path / "whole", share=0.5)
    with pytest.raises(KeyboardInterrupt):
        toy.tune(tmp_path / "killed", share=0.5, progress=killed_at(5))
    steps: list[int] = []
    again, resumed, again_each = toy.tune(tmp_path / "killed", share=0.5, progress=EveryStep(steps.append))
    assert same(state(again), state(whole))
    assert without_times(resumed.rows) == without_times(undisturbed.rows)
    assert again_each == each
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_phase_that_patience_had_ended_makes_no_further_step_when_it_was_killed_then(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, evaluations=6, learning_rate=RUINOUS, warmup=0.0)
    _, undisturbed, each = toy.tune(tmp_path / "whole", settings, patience=2)

    def kill(hooks: TrainingHooks, model: nn.Module) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingHooks, "restore_best", kill)
        with pytest.raises(KeyboardInterrupt):
            toy.tune(tmp_path / "killed", settings, patience=2)
    model, resumed, again = toy.tune(tmp_path / "killed", settings, patience=2)
    assert [row["step"] for row in undisturbed.rows] == [0, 1, 2]
    assert without_times(resumed.rows) == without_times(undisturbed.rows)
    assert again == each
    assert same(state(model), toy.start)


def test_same_seed_same_bytes_other_seed_other_bytes(toy: Toy, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=3, evaluations=1)
    one, _, _ = toy.tune(tmp_path / "one", settings)
    torch.rand(3)  # whatever happened before in the process plays no part
    two, _, _ = toy.tune(tmp_path / "two", settings)
    other, _, _ = toy.tune(tmp_path / "other", replace(settings, seed=1))
    assert same(state(one), state(two))
    assert not same(state(one), state(other))


# The base model's answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("configurations", [1, 3])
def test_the_base_model_answers_once_for_each_step_whatever_the_number_of_configurations(
    toy: Toy, configurations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []
    made = Answers.__init__

    def counted(answers: Answers, base: nn.Module, *given: Any) -> None:
        base.register_forward_hook(lambda module, *_: passes.append(module.training))
        made(answers, base, *given)

    monkeypatch.setattr(Answers, "__init__", counted)
    toy.tune(tmp_path, replace(SETTINGS, steps=3, evaluations=1), configurations=configurations, share=0.5)
    assert passes == [False] * 3


def test_divergence_is_that_of_torch_over_the_rows_that_count() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(2, 5, 7, generator=draw), torch.randn(2, 5, 7, generator=draw)
    asked = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]).bool()
    p, q = (torch.distributions.Categorical(logits=rows[asked].double()) for rows in (wanted, logits))
    expected = torch.distributions.kl_divergence(p, q).mean()
    assert divergence(logits, wanted, asked).item() == pytest.approx(expected.item(), rel=1e-5)
    spoilt = torch.where(~asked[..., None], torch.full((), 1e4), logits)
    assert torch.equal(divergence(spoilt, wanted, asked), divergence(logits, wanted, asked))
    assert divergence(wanted, wanted, asked).item() == pytest.approx(0, abs=1e-6)
    # Where a whole example has one answer, all rows count.
    every = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=wanted[0]), torch.distributions.Categorical(logits=logits[0])
    ).mean()
    assert divergence(logits[0], wanted[0]).item() == pytest.approx(every.item(), rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_lies_between_the_labels_and_the_base_models_answers(toy: Toy, share: float) -> None:
    base, model = toy.base.load().train(), elsewhere(toy).eval()
    batch = toy.task.collate(toy.train.features[:5])
    loss = Answers(base, toy.task, share).loss(model, batch)
    loss.backward()
    with torch.no_grad():
        output, real = model(**batch), batch["labels"] != -100
        wanted = base.eval()(**batch).logits[real]
        apart = nn.functional.kl_div(output.logits[real].log_softmax(-1), wanted.softmax(-1), reduction="none").sum(-1)
    assert apart.mean() > 0.01
    expected = (1 - share) * output.loss + share * apart.mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert all(p.grad is None for p in base.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_the_base_model_is_in_its_mode_again_after_it_has_answered(toy: Toy) -> None:
    base, model = toy.base.load().train(), toy.base.load()
    Answers(base, toy.task, 0.5).loss(model, toy.task.collate(toy.train.features[:2]))
    assert all(module.training for module in base.modules())


def test_a_model_without_logits_has_no_answers_to_learn(toy: Toy) -> None:
    class Nothing(nn.Module):
        def forward(self, **batch: Tensor) -> Any:
            return type("Output", (), {"loss": torch.zeros(())})()

    with pytest.raises(ModelError, match="--distill: the model's output has no logits to learn from"):
        Answers(Nothing(), toy.task, 0.5).loss(Nothing(), toy.task.collate(toy.train.features[:2]))
