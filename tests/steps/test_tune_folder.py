"""Any folder learns on: zeros held, shapes kept, holes filled; and only a part of it, where only a part is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from composer.cli.app import call
from composer.models.folder import BaseModel


@pytest.fixture(scope="module")
def masked(distilbert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT without half of the neurons of one layer, and with holes in the other."""
    base = BaseModel(distilbert_folder)
    model: Any = base.load()
    first, second = model.distilbert.transformer.layer
    with torch.no_grad():
        first.ffn.lin1.weight[::2], first.ffn.lin1.bias[::2], first.ffn.lin2.weight[:, ::2] = 0.0, 0.0, 0.0
        second.attention.out_lin.weight.view(-1)[::3] = 0.0
    folder = tmp_path_factory.mktemp("masked") / "2"
    folder.mkdir()
    base.save(model, folder)
    return folder


Tune = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def tune(masked: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tune:
    """Fine-tunes the masked folder, as a user would; its new folder and what was recorded of it."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> tuple[Path, dict[str, Any]]:
        words = ["finetune", str(masked), "-o", "out", "--data", str(classification_data), "--learning-rate", "0.005"]
        assert call([*words, "--steps", "6", "--batch-size", "8", "--device", "cpu", *flags]) == 0
        return tmp_path / "out", json.loads((tmp_path / "out" / "composer.json").read_text())["result"]

    return run


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def learnt(before: Path, after: Path) -> set[str]:
    """Names of what has changed."""
    return {name for name, value in weights(before).items() if not torch.equal(value, weights(after)[name])}


def assert_same_zeros(before: Path, after: Path) -> None:
    now = weights(after)
    for target in BaseModel(before).layout.targets:
        for p in target.projections:
            assert torch.equal(weights(before)[p.weight] == 0, now[p.weight] == 0), p.weight


def test_zeros_are_held_and_everything_else_learns(tune: Tune, masked: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ("--distill", "0.5", "--temperature", "2", "--hidden", "1")
    out, result = tune(*flags)
    assert_same_zeros(masked, out)
    assert len(learnt(masked, out)) > 20
    size = sum(p.numel() for p in BaseModel(masked).load().parameters())
    assert result["learnt"] == {"train": "all", "parameters": size, "of": size, "optimizer_bytes": 8 * size}
    said = capfd.readouterr()
    assert "all: " in said.out
    assert "hidden states: layer 1 of 2 from 1 of 2, layer 2 of 2 from 2 of 2" in said.err
    tune(*flags)
    assert "is up to date" in capfd.readouterr().out


def test_low_rank_updates_learn_under_the_masks(tune: Tune, masked: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed: `make test-peft`")
    out, result = tune("--train", "lora")
    assert_same_zeros(masked, out)
    model = BaseModel(out).load()  # an ordinary folder: no adapter in it
    assert {name for name, _ in model.named_parameters()} == weights(masked).keys()
    assert "distilbert.transformer.layer.0.ffn.lin1.weight" in learnt(masked, out)
    assert result["final_loss"] < result["first_loss"]


def test_biases_and_norms_alone_learn_beside_holes_that_are_filled(tune: Tune, masked: Path) -> None:
    out, result = tune("--densify", "--train", "biases-norms")  # so that noise is all that changes in the matrices
    vectors = {name for name, value in weights(masked).items() if value.dim() == 1}
    assert learnt(masked, out) & vectors
    assert result["learnt"]["parameters"] == sum(weights(masked)[name].numel() for name in vectors)
    assert result["learnt"]["optimizer_bytes"] == 8 * result["learnt"]["parameters"]
    before, after = weights(masked), weights(out)
    holes = "distilbert.transformer.layer.1.attention.out_lin.weight"
    assert (after[holes] != 0).all()
    kept = before[holes] != 0
    assert torch.equal(after[holes][kept], before[holes][kept])
    assert after[holes][~kept].std() == pytest.approx(0.1 * float(before[holes][kept].std()), rel=0.3)
    assert learnt(masked, out) - vectors == {holes}  # what is gone whole stays away


def test_holes_are_filled_towards_a_base_model_where_that_lowers_the_loss(
    distilbert_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # curves are written below the current folder
    base, name = BaseModel("demo"), "encoder.block.0.layer.0.SelfAttention.o.weight"
    model: Any = base.load()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[::3] = 0.0
    (holes := tmp_path / "holes").mkdir()
    base.save(model, holes)
    words = ["--data", "demo", "--densify", "--steps", "1", "--learning-rate", "1e-9", "--valid-size", "32"]
    for kind, more in (("noise", []), ("other", ["-m", str(distilbert_folder)]), ("refitted", ["-m", "demo"])):
        assert call(["finetune", str(holes), "-o", str(tmp_path / kind), *words, *more]) == 0
    said = capfd.readouterr().err
    assert "densify: demo: last projections are refitted towards it, which brings the validation loss from" in said
    assert f"densify: {distilbert_folder} has other sublayers than {holes}, so holes are filled with noise" in said
    assert torch.equal(weights(tmp_path / "other")[name], weights(tmp_path / "noise")[name])
    wanted = base.load().get_parameter(name).detach()
    noise, refitted = (float((weights(tmp_path / kind)[name] - wanted).norm()) for kind in ("noise", "refitted"))
    assert refitted < noise / 4
    assert call(["finetune", str(tmp_path / "refitted"), "-o", str(tmp_path / "no"), *words]) == 2
    assert "has no zeros in heads and neurons that are left" in capfd.readouterr().err


def test_what_makes_no_sense_beside_a_folder_is_refused(
    masked: Path, distilbert_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(["finetune", str(masked), "-n", "2"]) == 2
    assert "-n/--configuration: not together with MODEL" in capfd.readouterr().err
    assert call(["finetune"]) == 2
    assert "--level: nothing given; allowed: block, model" in capfd.readouterr().err
    assert call(["finetune", "--level", "model", "-n", "0", "--densify"]) == 2
    assert "--densify: for a model folder" in capfd.readouterr().err
