"""What `evaluate` and `predict` say for each kind of task, on tiny models."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.conftest import SUBJECTS, VERBS, Folder

from .conftest import Compose, Recorder

SENTENCES = [f"the {a} {verb} a {b}" for a in SUBJECTS for verb in VERBS for b in SUBJECTS]


def test_masked_language_model(compose: Compose, model_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "test.txt").write_text("\n".join(SENTENCES))
    words = ("--data", "texts", "--max-source-length", "22", "--test-size", "10")
    said = compose("evaluate", str(model_folder("bert-masked")), *words)
    assert said.status == 0, said.err
    assert said.out.startswith("test (10 examples)")
    assert "loss  perplexity  sparsity" in said.out
    assert ": 30 tokens in " in said.out
    (path,) = Path("results").glob("*.json")
    result = json.loads(path.read_text())["result"]
    assert result["metrics"]["perplexity"] == pytest.approx(math.exp(result["loss"]))
    filled = compose("predict", str(model_folder("bert-masked")), "the man [MASK] a dog")
    assert filled.out.endswith(")\n")


def test_question_answering(compose: Compose, model_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "squad").mkdir()
    rows = [
        {"question": "a man", "context": text, "answers": {"text": ["the"][:i], "answer_start": [0][:i]}}
        for i, text in zip((1, 0), SENTENCES, strict=False)
    ]
    (tmp_path / "squad" / "dev-v2.0.json").write_text(json.dumps(rows))
    model = str(model_folder("bert-answering"))
    said = compose("evaluate", model, "--data", "squad", "--max-source-length", "32", "--max-answer-length", "2")
    assert said.status == 0, said.err
    assert said.out.startswith("test (2 questions)")
    head = said.out.partition("─")[0].split()
    assert head.count("answer") == 5
    assert {"exact", "match", "f1", "has", "no"} <= set(head)
    (path,) = Path("results").glob("*.json")
    details = json.loads(path.read_text())["result"]["details"]
    assert (details["max_answer_length"], details["null_score_diff_threshold"]) == (2, 0.0)
    again = ("evaluate", model, "--data", "squad", "--max-source-length", "32", "--null-score-diff-threshold")
    other = compose(*again, "5")
    assert other.status == 2
    assert "null_score_diff_threshold: 0.0 then, 5.0 now" in other.err
    answered = compose("predict", model, "a man\tthe man sees a dog", "--null-score-diff-threshold", "-1000")
    assert answered.out == "(no answer)\n"


def test_figures_are_printed_with_their_decimals(compose: Compose, recorder: Recorder) -> None:
    (result,) = recorder.outcomes["evaluate"].summary["results"]
    figures = {"perplexity": 29.414, "accuracy": 0.91234, "answer_f1": 81.239}
    details = {"tokens": 287644, "seconds": 75.0}
    recorder.outcomes["evaluate"].summary["results"] = [{**result, "metrics": figures, "details": details}]
    said = compose("evaluate", "m").out
    assert {"29.41", "0.912", "81.24"} <= set(said.split())
    assert "models/2-finetuned: 287,644 tokens in 1 min 15 s" in said
