"""The scripts of ``examples/``, as somebody who has copied them runs them, on tiny models."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import composer
from tests.conftest import Folder

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore")  # they are other people's scripts: warnings are no errors in them


def run(name: str, *words: object, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", [name, *map(str, words), "--steps", "2", "--batch-size", "2"])
    runpy.run_path(str(EXAMPLES / name))


def zeros(folder: Path, end: str) -> list[float]:
    return [
        (w == 0).float().mean().item() for n, w in load_file(folder / "model.safetensors").items() if n.endswith(end)
    ]


def test_sequence_classification(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = distilbert_folder, classification_data / "train.tsv", "-o", tmp_path / "smaller", "--neurons", 0.75
    run("sequence_classification.py", *given, monkeypatch=monkeypatch, place=tmp_path)
    before, after = (
        sum(p.numel() for p in composer.load(folder).parameters())
        for folder in (distilbert_folder, tmp_path / "smaller")
    )
    assert after < before
    assert zeros(tmp_path / "smaller-masked", "ffn.lin1.weight") == pytest.approx([0.75, 0.75])


def test_squad(distilbert_folder: Path, squad_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = distilbert_folder, squad_file, "-o", tmp_path / "pruned", "--length", 12, "--stride", 2, "--block", "4x4"
    run("squad.py", *given, "--rate", 0.75, monkeypatch=monkeypatch, place=tmp_path)
    assert zeros(tmp_path / "pruned", "out_lin.weight") == pytest.approx([0.75, 0.75])
    assert zeros(tmp_path / "pruned", "ffn.lin2.weight") == pytest.approx([0.75, 0.75])


def test_translation(
    model_folder: Folder, translation_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(model_folder("t5"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("wi.weight"):
                parameter[::2] = 0.0
    model.save_pretrained(tmp_path / "2")
    transformers.AutoTokenizer.from_pretrained(model_folder("t5")).save_pretrained(tmp_path / "2")
    files = [translation_data / f"train.{language}" for language in ("en", "de")]
    run("translation.py", tmp_path / "2", *files, "-o", tmp_path / "better", monkeypatch=monkeypatch, place=tmp_path)
    assert set(zeros(tmp_path / "better", "wi.weight")) == {0.5}


@pytest.fixture
def squad_file(tmp_path: Path) -> Path:
    context = "the old dog sees a small cat and the man sees the dog"
    asked = [("who sees a cat", [{"text": "old dog", "answer_start": 4}]), ("who sleeps", [])]
    questions = [{"question": question, "id": question, "answers": answers} for question, answers in asked]
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]}))
    return file
