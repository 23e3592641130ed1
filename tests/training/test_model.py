"""Model-level fine-tuning: masks held, best weights kept, rows, resuming, determinism."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from composer.errors import ModelError
from composer.models.folder import BaseModel
from composer.progress import SILENT, Progress
from composer.tasks import DataOptions, Examples, Task, open_task
from composer.training.model import ModelSettings, ModelTuning, tune_model
from tests.reference.progress import EveryStep, killed_at

SETTINGS = ModelSettings(
    steps=8,
    batch_size=4,
    learning_rate=0.01,
    warmup=0.1,
    weight_decay=0.0,
    clip=1.0,
    evaluations=4,
    seed=0,
    precision="fp32",
)
RUINOUS = 100.0
"""So high a rate that no machine's rounding makes a model better by chance."""
COLUMNS = ["step", "epoch", "train_loss", "valid_loss", "train_seconds", "valid_seconds"]


class Toy:
    """A tiny model with its task, data and hand-made masks."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.base = BaseModel(folder)
        options = DataOptions(data=str(data), max_source_length=32, max_target_length=16)
        self.task: Task = open_task(options, folder, self.base.config)
        self.train, self.valid = self.task.load("train"), self.task.load("valid")

    def masked(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """The base model with about half of four of its weights at 0, and the masks."""
        model = self.base.load()
        draw = torch.Generator().manual_seed(5)
        parameters = dict(model.named_parameters())
        names = [p.weight for target in self.base.layout.targets for p in target.projections][::3]
        masks = {name: torch.rand(parameters[name].shape, generator=draw) < 0.5 for name in names}
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name][~mask] = 0.0
        return model, masks

    def tune(
        self,
        work: Path,
        settings: ModelSettings = SETTINGS,
        *,
        progress: Progress = SILENT,
        dense: bool = False,
        watch: Callable[[nn.Module, dict[str, Tensor]], None] | None = None,
    ) -> tuple[nn.Module, dict[str, Tensor], ModelTuning]:
        model, masks = self.masked()
        if dense:
            model, masks = self.base.load(), {}
        if watch:
            watch(model, masks)
        work.mkdir(exist_ok=True)
        done = tune_model(model, masks, self.task, self.train, self.valid, settings, work=work, progress=progress)
        return model, masks, done


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def removed(parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
    """All removed weights, one after the other."""
    return torch.cat([parameters[name].detach()[~mask] for name, mask in masks.items()])


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


@torch.no_grad()
def loss_by_hand(model: nn.Module, data: Examples) -> float:
    """Cross entropy per label (token or class), one example at a time."""
    model.eval()
    total, count = 0.0, 0
    for feature in data.features:
        label = feature["labels"]
        labels = torch.tensor([label] if isinstance(label, list) else label).reshape(1, -1)
        extra = {"labels": labels} if isinstance(label, list) else {}
        logits = model(input_ids=torch.tensor([feature["input_ids"]]), **extra).logits.double()
        chosen = logits.log_softmax(-1).reshape(labels.shape[1], -1)[range(labels.shape[1]), labels[0]]
        total, count = total - float(chosen.sum()), count + labels.shape[1]
    return total / count


@pytest.fixture(scope="module")
def translation(t5_folder: Path, translation_data: Path) -> Toy:
    return Toy(t5_folder, translation_data)


@pytest.fixture(scope="module")
def classification(distilbert_folder: Path, classification_data: Path) -> Toy:
    return Toy(distilbert_folder, classification_data)


@pytest.fixture(params=["translation", "classification"])
def toy(request: pytest.FixtureRequest) -> Toy:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_removed_weights_are_zero_after_every_step_and_in_every_checkpoint(
    toy: Toy, decay: float, tmp_path: Path
) -> None:
    seen: list[nn.Module] = []
    held: list[dict[str, Tensor]] = []
    counts: list[int] = []
    saved: dict[str, int] = {}

    def watch(model: nn.Module, masks: dict[str, Tensor]) -> None:
        seen.append(model)
        held.append(masks)

    def check(step: int) -> None:
        counts.append(int((removed(dict(seen[0].named_parameters()), held[0]) != 0).sum()))
        for path in [*tmp_path.glob("checkpoint-*/model.safetensors"), *tmp_path.glob("best.safetensors")]:
            saved[f"{path.parent.name}/{path.name}"] = int((removed(load_file(path), held[0]) != 0).sum())

    settings = replace(SETTINGS, weight_decay=decay)
    model, masks, _ = toy.tune(tmp_path, settings, progress=EveryStep(check), watch=watch)
    assert counts == [0] * 8
    assert {f"checkpoint-{step}/model.safetensors" for step in (2, 4, 6)} < saved.keys()
    assert set(saved.values()) == {0}
    assert len(removed(state(model), masks)) > 100
    start, _ = toy.masked()
    moved = [name for name in masks if not torch.equal(state(model)[name], state(start)[name])]
    assert moved == list(masks)


def test_each_step_sets_removed_weights_to_zero_whatever_moved_them(toy: Toy, tmp_path: Path) -> None:
    """Masked gradients alone would keep a zero; something else (here: the test) may move a removed weight."""
    seen: list[tuple[nn.Module, dict[str, Tensor]]] = []
    counts: list[int] = []

    def spoil(model: nn.Module, masks: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in masks:
                    parameter[~masks[name]] = 0.01

    def check(step: int) -> None:
        model, masks = seen[0]
        counts.append(int((removed(dict(model.named_parameters()), masks) != 0).sum()))
        spoil(model, masks)

    def watch(model: nn.Module, masks: dict[str, Tensor]) -> None:
        seen.append((model, masks))
        spoil(model, masks)

    toy.tune(tmp_path, progress=EveryStep(check), watch=watch)
    assert counts == [0] * 8


def test_gradients_of_removed_weights_are_zero_so_clipping_does_not_see_them(toy: Toy, tmp_path: Path) -> None:
    kept, gone = [], []

    def watch(model: nn.Module, masks: dict[str, Tensor]) -> None:
        def note(parameter: Tensor, mask: Tensor) -> None:
            assert parameter.grad is not None
            gone.append(float(parameter.grad[~mask].abs().max()))
            kept.append(float(parameter.grad[mask].abs().max()))

        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.register_post_accumulate_grad_hook(lambda p, mask=masks[name]: note(p, mask))

    toy.tune(tmp_path, watch=watch)
    assert len(gone) >= 8
    assert max(gone) == 0.0
    assert max(kept) > 0.0


def test_hooks_are_gone_afterwards(translation: Toy, tmp_path: Path) -> None:
    model, masks, _ = translation.tune(tmp_path, replace(SETTINGS, steps=1))
    loss, _ = translation.task.loss(model, translation.task.collate(translation.train.features[:4]))
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert float(removed(gradients, masks).abs().max()) > 0
    assert not model.training


def test_the_loss_falls_on_what_can_be_learned(toy: Toy, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=48, learning_rate=0.02, evaluations=2)
    model, _, done = toy.tune(tmp_path, settings)
    assert done.best_loss < 0.6 * done.first_loss
    assert loss_by_hand(model, toy.valid) == pytest.approx(done.best_loss, rel=1e-4)


def test_rows_begin_before_any_training(toy: Toy, tmp_path: Path) -> None:
    start, _ = toy.masked()
    _, _, done = toy.tune(tmp_path, replace(SETTINGS, steps=7, evaluations=3))
    assert [list(row) for row in done.rows] == [COLUMNS] * 4
    assert [row["step"] for row in done.rows] == [0, 3, 6, 7]
    assert [row["epoch"] for row in done.rows] == pytest.approx([0, 0.5, 1, 7 / 6], abs=1e-3)
    assert done.rows[0]["train_loss"] is None
    assert done.rows[0]["train_seconds"] == 0
    assert done.rows[0]["valid_loss"] == pytest.approx(loss_by_hand(start, toy.valid), rel=1e-5)
    assert done.first_loss == done.rows[0]["valid_loss"]
    times = [row["train_seconds"] for row in done.rows]
    assert times == sorted(times)
    assert done.train_seconds == times[-1] > 0
    assert all(math.isfinite(row["train_loss"]) for row in done.rows[1:])


def test_train_loss_is_the_mean_over_one_pass_of_all_examples(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path
) -> None:
    toy = Toy(distilbert_folder, classification_data)

    def no_dropout(model: nn.Module, masks: dict[str, Tensor]) -> None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    settings = replace(SETTINGS, steps=6, evaluations=1, learning_rate=1e-9)
    model, _, done = toy.tune(tmp_path, settings, watch=no_dropout)
    assert [row["step"] for row in done.rows] == [0, 6]
    assert done.rows[1]["train_loss"] == pytest.approx(loss_by_hand(model, toy.train), rel=1e-4)


def test_a_run_that_only_gets_worse_ends_with_the_weights_it_started_from(toy: Toy, tmp_path: Path) -> None:
    start, _ = toy.masked()
    model, _, done = toy.tune(tmp_path, replace(SETTINGS, learning_rate=RUINOUS))
    assert min(row["valid_loss"] for row in done.rows[1:]) > done.first_loss
    assert (done.best_step, done.best_loss) == (0, done.first_loss)
    assert same(state(model), state(start))


def test_the_last_weights_stay_where_that_is_asked_for_after_a_kill_too(toy: Toy, tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=RUINOUS, weight_decay=1e-3, keep="last")
    start, _ = toy.masked()
    model, _, done = toy.tune(tmp_path / "whole", settings)
    assert done.best_step == 8
    assert done.best_loss == done.rows[-1]["valid_loss"] > done.first_loss
    assert not same(state(model), state(start))
    with pytest.raises(KeyboardInterrupt):
        toy.tune(tmp_path / "killed", settings, progress=killed_at(5))
    again, _, _ = toy.tune(tmp_path / "killed", settings)
    assert same(state(again), state(model))


def test_the_best_of_several_validations_is_kept(toy: Toy, tmp_path: Path) -> None:
    model, _, done = toy.tune(tmp_path, replace(SETTINGS, steps=24, evaluations=12, learning_rate=0.1))
    losses = {row["step"]: row["valid_loss"] for row in done.rows}
    assert done.best_loss == min(losses.values()) == losses[done.best_step]
    assert loss_by_hand(model, toy.valid) == pytest.approx(done.best_loss, rel=1e-4)


def test_a_run_that_diverges_ends_with_its_best_weights_and_empty_losses(toy: Toy, tmp_path: Path) -> None:
    start, _ = toy.masked()
    model, _, done = toy.tune(tmp_path, replace(SETTINGS, learning_rate=1e30))
    assert done.rows[-1]["valid_loss"] is None
    assert done.broke == next(row["step"] for row in done.rows if row["valid_loss"] is None)
    assert math.isfinite(done.best_loss)
    if done.best_step == 0:
        assert same(state(model), state(start))
    assert loss_by_hand(model, toy.valid) == pytest.approx(done.best_loss, rel=1e-4)


def test_a_model_without_a_finite_loss_is_refused(translation: Toy, tmp_path: Path) -> None:
    def spoil(model: nn.Module, masks: dict[str, Tensor]) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))

    with pytest.raises(ModelError, match="validation loss before any step is nan"):
        translation.tune(tmp_path, watch=spoil)


BY_LENGTH = {"group_by_length": True, "batch_size": 16}  # several epochs


@pytest.mark.parametrize(("step", "options"), [(3, {}), (8, {}), (7, BY_LENGTH)], ids=["3", "8", "by length"])
def test_a_killed_run_goes_on_to_the_same_bytes(toy: Toy, step: int, options: dict[str, Any], tmp_path: Path) -> None:
    settings = replace(SETTINGS, **options)
    whole, _, undisturbed = toy.tune(tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        toy.tune(tmp_path / "killed", settings, progress=killed_at(step))
    steps: list[int] = []
    again, masks, resumed = toy.tune(tmp_path / "killed", settings, progress=EveryStep(steps.append))
    assert same(state(again), state(whole))
    assert without_times(resumed.rows) == without_times(undisturbed.rows)
    assert (resumed.best_loss, resumed.best_step) == (undisturbed.best_loss, undisturbed.best_step)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not removed(state(again), masks).any()
    times = [row["train_seconds"] for row in resumed.rows]
    assert times == sorted(times)


def test_best_weights_from_before_the_interruption_are_found_again(toy: Toy, tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=RUINOUS)
    start, _ = toy.masked()
    with pytest.raises(KeyboardInterrupt):
        toy.tune(tmp_path, settings, progress=killed_at(5))
    model, _, done = toy.tune(tmp_path, settings)
    assert done.best_step == 0
    assert same(state(model), state(start))


def test_a_checkpoint_that_was_not_finished_is_not_used(translation: Toy, tmp_path: Path) -> None:
    whole, _, _ = translation.tune(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        translation.tune(tmp_path / "killed", progress=killed_at(5))
    newest = max((tmp_path / "killed").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (newest / "composer.json").unlink()
    again, _, _ = translation.tune(tmp_path / "killed")
    assert same(state(again), state(whole))


def test_resuming_reads_no_pickle(translation: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        translation.tune(tmp_path, progress=killed_at(5))
    ours = [p.name for p in tmp_path.rglob("*") if p.is_file() and "checkpoint-" not in p.parent.name]
    assert ours == ["best.safetensors"]
    modes: list[Any] = []
    load = torch.load

    def noted(*args: Any, **kwargs: Any) -> Any:
        modes.append(kwargs.get("weights_only"))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", noted)
    translation.tune(tmp_path)
    assert modes
    assert set(modes) == {True}


def test_same_seed_same_bytes_other_seed_other_bytes(toy: Toy, tmp_path: Path) -> None:
    one, _, _ = toy.tune(tmp_path / "one")
    torch.rand(3)  # whatever happened before in the process plays no part
    two, _, _ = toy.tune(tmp_path / "two")
    other, _, _ = toy.tune(tmp_path / "other", replace(SETTINGS, seed=1))
    assert same(state(one), state(two))
    assert not same(state(one), state(other))


def test_without_dropout_a_model_learns_as_one_that_has_none(toy: Toy, tmp_path: Path) -> None:
    def put_out(model: nn.Module, masks: dict[str, Tensor]) -> None:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0

    off, _, _ = toy.tune(tmp_path / "off", replace(SETTINGS, dropout=False))
    without, _, _ = toy.tune(tmp_path / "without", watch=put_out)
    given, _, _ = toy.tune(tmp_path / "given")
    assert same(state(off), state(without))
    assert not same(state(off), state(given))


def test_batches_of_like_lengths_are_what_the_model_gets(
    translation: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    collate = translation.task.collate

    def watched(features: Any) -> Any:
        seen.append([len(feature["input_ids"]) for feature in features])
        return collate(features)

    def padding() -> int:
        return sum(max(lengths) * 4 - sum(lengths) for lengths in seen if len(lengths) == 4)

    monkeypatch.setattr(translation.task, "collate", watched)
    epoch = replace(SETTINGS, steps=len(translation.train) // 4, evaluations=1)
    translation.tune(tmp_path / "drawn", epoch)
    drawn = padding()
    seen.clear()
    translation.tune(tmp_path / "grouped", replace(epoch, group_by_length=True))
    assert padding() < drawn / 2


def test_bf16_computes_in_bf16_and_keeps_float32(toy: Toy, tmp_path: Path) -> None:
    full, _, _ = toy.tune(tmp_path / "fp32")
    model, masks, done = toy.tune(tmp_path / "bf16", replace(SETTINGS, precision="bf16"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not same(state(model), state(full))
    assert done.best_loss < done.first_loss
    assert not removed(state(model), masks).any()


def test_a_dense_model_trains_all_its_weights(toy: Toy, tmp_path: Path) -> None:
    model, _, done = toy.tune(tmp_path, dense=True)
    start = state(toy.base.load())
    assert done.best_loss < done.first_loss
    for target in toy.base.layout.targets:
        for projection in target.projections:
            assert not torch.equal(state(model)[projection.weight], start[projection.weight])
