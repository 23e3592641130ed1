"""Answers with the largest likelihood, as lm-eval's model class has it; skipped where lm-eval is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from composer.errors import DataError, RecipeError
from composer.evaluation.suites import common_sense
from tests.conftest import Folder

from .conftest import Evaluate

ROWS = [
    {"question": "the man sees", "choices": ["a dog", "the red cat"], "answer": 0},
    {"question": "the boy likes", "choices": ["a film", "the old man"], "answer": 1},
]


def write(data: Path, *rows: dict[str, object]) -> None:
    (data / "csr").mkdir(exist_ok=True)
    (data / "csr" / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_is_missing_is_named(
    evaluate: Evaluate, data: Path, model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common_sense, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match=r"common-sense needs lm-eval; pip install 'composer-pruning\[eval\]'"):
        evaluate(model_folder("llama"), suite="common-sense")
    monkeypatch.setattr(common_sense, "find_spec", lambda _: True)
    write(data, ROWS[0], {**ROWS[1], "answer": 2})
    with pytest.raises(DataError, match=r"piqa\.jsonl:2: .* the right answer is 2 of 2"):
        evaluate(model_folder("llama"), "piqa")


def test_the_likeliest_answer_is_the_model_s(
    evaluate: Evaluate, data: Path, model_folder: Folder, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'composer-pruning[eval]'")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write(data, *ROWS)
    (row,) = evaluate(model_folder("gpt2"), "piqa").summary["rows"]
    samples = [json.loads(x) for x in (tmp_path / "evaluation" / "gpt2" / "piqa.jsonl").read_text().splitlines()]
    model, tokenizer = (kind.from_pretrained(model_folder("gpt2")) for kind in (AutoModelForCausalLM, AutoTokenizer))
    for sample in samples:
        for choice, got in zip(sample["choices"], sample["log_likelihoods"], strict=True):
            context, more = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (sample["prompt"], choice))
            with torch.no_grad():
                logs = model(torch.tensor([context + more])).logits[0].log_softmax(-1)
            wanted = sum(logs[len(context) + i - 1, token].item() for i, token in enumerate(more))
            assert got == pytest.approx(wanted, abs=1e-3)
    assert row["cells"]["gpt2"][0]["chance"] == 0.5
    assert row["cells"]["gpt2"][0]["value"] == sum(s["right"] for s in samples) / 2
