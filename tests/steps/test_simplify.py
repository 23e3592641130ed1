"""`compose simplify`, as a user would: closed forms, training, what it says, and what other commands make of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import composer
from composer.cli.app import call
from composer.models.folder import BaseModel
from composer.progress import Bar, Progress
from composer.shrinking.units import Units
from tests.reference.zeroed import masked_folder

Simplify = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def masked(distilbert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT without half of the neurons of one layer."""
    base = BaseModel(distilbert_folder)
    model: Any = base.load()
    with torch.no_grad():
        ffn = model.distilbert.transformer.layer[0].ffn
        ffn.lin1.weight[::2], ffn.lin1.bias[::2], ffn.lin2.weight[:, ::2] = 0.0, 0.0, 0.0
    folder = tmp_path_factory.mktemp("masked") / "2"
    folder.mkdir()
    base.save(model, folder)
    return folder


@pytest.fixture
def simplify(masked: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simplify:
    """Simplifies the masked folder into ``out``; what was recorded of it."""
    from composer.shrinking import verify
    from composer.shrinking.verify import answers, compared, load_as_anyone
    from composer.steps import simplify as step

    def here(old: Path, small: Path) -> verify.Verification:
        return compared(answers(BaseModel(old).load()), answers(load_as_anyone(small)))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verify, "verify", here)
    monkeypatch.setattr(step, "time_on_texts", lambda *_, **__: SPEED)

    def run(*flags: str, status: int = 0, model: Path = masked, data: Path = classification_data) -> dict[str, Any]:
        words = ["simplify", str(model), "-o", "out", "--data", str(data), "--device", "cpu"]
        assert call([*words, *flags]) == status
        return {} if status else json.loads((tmp_path / "out" / "composer.json").read_text())["result"]

    return run


SPEED: dict[str, Any] = {
    "device": "cpu",
    "threads": 1,
    "clock": "processor",
    "rounds": 7,
    "new_tokens": 1,
    "entries": [],
    "rows": [],
    "layers": [],
}
BOTH = ("--norm", "no-norm", "--activation", "relu")


def test_both_parts_learn_back_and_every_command_takes_the_result(
    simplify: Simplify, masked: Path, classification_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = simplify(*BOTH, "--steps", "2", "--batch-size", "8")
    assert result["final_loss"] <= result["first_loss"]
    assert len(result["norms"]) == 5
    assert result["folded"] == []
    said = capfd.readouterr().out
    for words in ("before", "replaced, no step", "2 steps", "5 norms are a scale and a shift, 0 of them folded"):
        assert words in said
    out = tmp_path / "out"
    config, weights = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
    assert config["activation"] == "relu"
    assert weights["distilbert.embeddings.LayerNorm.weight"].shape == (2, 16)
    gone = load_file(masked / "model.safetensors")["distilbert.transformer.layer.0.ffn.lin1.weight"] == 0
    assert torch.equal(weights["distilbert.transformer.layer.0.ffn.lin1.weight"] == 0, gone)
    # Anyone loads it with its code, and nobody without.
    ids = torch.tensor([[3, 9, 12, 4]])
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True)
    assert torch.equal(theirs(ids).logits, composer.load(out)(ids).logits)
    with pytest.raises(RuntimeError, match="mismatch"):
        transformers.DistilBertForSequenceClassification.from_pretrained(out)
    simplify(*BOTH, "--steps", "2", "--batch-size", "8")
    assert "is up to date" in capfd.readouterr().out
    # What is shrunk and learns on stays what it is: verified against the masked one by the command itself.
    data = ("--data", str(classification_data), "--device", "cpu")
    assert call(["shrink", str(out), "-o", "small"]) == 0
    assert call(["finetune", "small", "-o", "on", *data, "--steps", "1", "--train", "biases-norms"]) == 0
    vectors = [
        v for name, v in load_file(tmp_path / "small" / "model.safetensors").items() if v.dim() == 1 or "orm." in name
    ]
    learnt = json.loads((tmp_path / "on" / "composer.json").read_text())["result"]["learnt"]
    assert learnt["parameters"] == sum(v.numel() for v in vectors)
    simple = BaseModel(tmp_path / "on")
    assert "norms and biases" in str(simple.no_targets)
    assert simple.config["simplified"] == config["simplified"]


def test_an_activation_alone_is_an_ordinary_folder(simplify: Simplify, masked: Path, tmp_path: Path) -> None:
    result = simplify("--activation", "relu", "--steps", "0")
    assert result["steps"] == 0
    assert not list((tmp_path / "out").glob("*.py"))
    plain = transformers.DistilBertForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert type(plain.distilbert.transformer.layer[0].ffn.activation).__name__ == "ReLU"
    ids = torch.tensor([[3, 9, 12, 4]])
    assert torch.equal(plain(ids).logits, composer.load(tmp_path / "out")(ids).logits)


def test_zeros_stay_where_norms_are_folded_and_an_empty_layer_goes_with_its_norms(
    simplify: Simplify, model_folder: Any, running_text: Path, tmp_path: Path
) -> None:
    def some(_: int, units: Units) -> Sequence[int]:
        whole = units.layer.endswith(".0")
        return range(units.count) if whole else range(0, units.count, 2) if units.kind == "feed_forward" else ()

    masked = masked_folder(model_folder("qwen3"), tmp_path / "masked", some)
    result = simplify("--norm", "no-norm", "--steps", "0", model=masked.folder, data=running_text)
    assert len(result["folded"]) == 4
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("masked", "out"))
    for projection in (p for target in masked.layout.targets for p in target.projections):
        assert torch.equal(before[projection.weight] == 0, after[projection.weight] == 0), projection.weight
    assert call(["shrink", "out", "-o", "small"]) == 0  # and holds the small one against it
    small = BaseModel(tmp_path / "small")
    assert small.config["num_hidden_layers"] == 1
    norms = ("input_layernorm", "post_attention_layernorm")
    assert small.config["simplified"]["norms"] == {f"model.layers.0.{n}": 0 for n in norms} | {"model.norm": 1}


class CtrlC(Progress):
    """Pressed once a checkpoint of the training is there, or where ``during`` begins."""

    def __init__(self, folder: Path, during: str = "") -> None:
        self.folder, self.during, self.said = folder, during, list[str]()

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        if label == self.during:
            raise KeyboardInterrupt
        progress = self

        class Watching(Bar):
            def advance(self, detail: str = "") -> None:
                progress.said.append(detail)
                if not progress.during and any(progress.folder.glob(".work/*/checkpoint-*/composer.json")):
                    raise KeyboardInterrupt

        yield Watching()


def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(
    simplify: Simplify, masked: Path, classification_data: Path, tmp_path: Path
) -> None:
    simplify("--norm", "no-norm", "--steps", "3", "--batch-size", "8")
    given = {"data": str(classification_data), "device": "cpu", "finetune": {"steps": 3, "batch_size": 8}}
    again = tmp_path / "again"
    recipe = composer.load_recipe(given={**given, "folder": str(again)}, file=False)
    kills = CtrlC(again), CtrlC(again, "measure")
    for progress in kills:
        with pytest.raises(KeyboardInterrupt):
            composer.simplify(recipe, masked, norm="no-norm", output=again / "out", progress=progress)
    assert "resumed" in kills[1].said
    made = composer.simplify(recipe, masked, norm="no-norm", output=again / "out")
    assert {"before", "after", "speed"} <= made.summary.keys()
    assert not (again / ".work").exists() or not any((again / ".work").iterdir())
    assert (again / "out" / "model.safetensors").read_bytes() == (tmp_path / "out" / "model.safetensors").read_bytes()


def test_what_cannot_be_simplified_is_said_in_one_line(
    simplify: Simplify,
    classification_data: Path,
    t5_folder: Path,
    model_folder: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    simplify("--norm", "no-norm", "--activation", "relu", "--steps", "0")
    cases = {
        ("simplify", "out"): "nothing is to be simplified: give --norm no-norm, --activation relu, or both",
        ("simplify", "out", "--norm", "layer"): "--norm: got 'layer'; allowed: no-norm",
        ("simplify", "out", "--activation", "relu6"): "--activation: got 'relu6'; allowed: relu",
        ("simplify", "out", "-o", "more", "--norm", "no-norm", "--data", str(classification_data)): (
            "--norm: out: its norms are a scale and a shift already; leave it out"
        ),
        ("simplify", "out", "--activation", "relu"): "--activation: out has relu already; leave it out",
        ("simplify", str(t5_folder), "--activation", "relu"): "has relu already",
        (
            "simplify",
            str(model_folder("bloom")),
            "--norm",
            "no-norm",
        ): "is a bloom, and no table says what its layers consist of",
        ("export", "out", "--to", "ct2"): "--to: got ct2, and norms of out are a scale and a shift; use onnx",
    }
    for words, message in cases.items():
        assert call([*words]) == 2, words
        assert message in " ".join(capfd.readouterr().err.split()), words
