"""`compose simplify`, as a user would: closed forms, training, what it says, and what other commands make of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import composer
from composer.cli.app import call
from composer.models.folder import BaseModel

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

    def run(*flags: str, status: int = 0) -> dict[str, Any]:
        data = ("--data", str(classification_data), "--device", "cpu")
        assert call(["simplify", str(masked), "-o", "out", *data, *flags]) == status
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
    result = simplify(*BOTH, "--steps", "6", "--batch-size", "8")
    assert result["final_loss"] <= result["first_loss"]
    assert len(result["norms"]) == 5
    assert result["folded"] == []
    said = capfd.readouterr().out
    for words in ("before", "replaced, no step", "6 steps", "5 norms are a scale and a shift, 0 of them folded"):
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
    simplify(*BOTH, "--steps", "6", "--batch-size", "8")
    assert "is up to date" in capfd.readouterr().out
    # What is shrunk and learns on stays what it is: verified against the masked one by the command itself.
    data = ("--data", str(classification_data), "--device", "cpu")
    assert call(["shrink", str(out), "-o", "small"]) == 0
    assert call(["finetune", "small", "-o", "on", *data, "--steps", "2", "--train", "biases-norms"]) == 0
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
