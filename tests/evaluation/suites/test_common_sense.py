"""Answers with the largest likelihood, as lm-eval's model class has it; skipped where lm-eval is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from composer.errors import DataError, RecipeError
from composer.evaluation.suites import common_sense
from composer.evaluation.suites.suite import SuiteOptions
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


NAMED = {"text": ["a dog", "the red cat"], "label": ["A", "B"]}
ON_HUB = {
    "openbookqa": ({"question_stem": "the man sees", "choices": NAMED, "answerKey": "B"}, "the man sees", 1),
    "winogrande": (
        {"sentence": "the man sees _ and runs", "option1": "a dog", "option2": "a cat", "answer": "2"},
        "the man sees _ and runs",
        1,
    ),
    "boolq": ({"question": "is it", "passage": "It is.", "answer": True}, "It is.\nQuestion: is it?\nAnswer:", 1),
    "arc-easy": (
        {"question": "the man sees", "choices": {**NAMED, "label": ["1", "2"]}, "answerKey": "1"},
        "Question: the man sees\nAnswer:",
        0,
    ),
    "piqa": (
        {"goal": "see", "sol1": "a dog", "sol2": "a cat", "label": 1},
        "Question: see\nAnswer:",
        1,
    ),
}


@pytest.mark.parametrize("name", ON_HUB)
def test_rows_are_read_as_the_hub_has_them(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common_sense, "find_spec", lambda _: True)
    given, prompt, gold = ON_HUB[name]
    (data / name).mkdir()
    (data / name / "validation.jsonl").write_text(json.dumps(given) + "\n")
    task = next(task for task in common_sense.TASKS if task.name == name)
    (row,) = task.load(SuiteOptions(data=data)).rows
    assert (row["prompt"], row["gold"], len(row["choices"])) == (prompt, gold, 2)
    assert row.get("suffix") == ("and runs" if name == "winogrande" else None)


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
