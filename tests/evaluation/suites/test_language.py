"""Perplexity: the same figure as the task of that name has, windows as examples, and going on after a kill."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import composer
from composer.errors import RecipeError
from composer.evaluation.suites import language
from composer.files.jsonfile import read_json
from composer.models.folder import BaseModel
from composer.shrinking.shrink import shrink_into
from tests.conftest import WORDS, Folder

from .conftest import Evaluate


@pytest.fixture
def text(data: Path) -> Path:
    """A test split of 20 windows of 16 tokens."""
    (data / "wikitext-2").mkdir()
    words = random.Random(0).choices(WORDS, k=330)
    (data / "wikitext-2" / "test.txt").write_text(" ".join(words) + "\n", encoding="utf-8")
    return data / "wikitext-2"


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert-masked"])
def test_perplexity_is_what_the_task_measures(
    name: str, evaluate: Evaluate, text: Path, model_folder: Folder, tmp_path: Path
) -> None:
    (row,) = evaluate(model_folder(name), "wikitext2", window=16, batch_size=3).summary["rows"]
    (measure,) = row["cells"][name]
    given = {"folder": str(tmp_path / "plain"), "data": str(text), "max_source_length": 16, "device": "cpu"}
    recipe = composer.load_recipe(given=given, file=False)
    (wanted,) = composer.evaluate(recipe, [model_folder(name)]).summary["results"]
    assert measure["value"] == pytest.approx(wanted["metrics"]["perplexity"], rel=1e-5)
    assert row["examples"] == wanted["examples"]
    assert measure["low"] < measure["value"] < measure["high"]
    # The delta method: the error of the logarithm is that of the mean loss.
    lines = (tmp_path / "evaluation" / name / "wikitext2.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    losses = [s["nats"] / s["tokens"] for s in samples]
    mean = sum(losses) / len(losses)
    error = math.sqrt(sum((x - mean) ** 2 for x in losses) / (len(losses) - 1) / len(losses))
    assert measure["error"] == pytest.approx(measure["value"] * error, rel=0.3)


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    evaluate: Evaluate, text: Path, model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "evaluation" / "llama"
    evaluate(model_folder("llama"), "wikitext2", window=16, batch_size=3)
    whole = (folder / "wikitext2.jsonl").read_bytes()
    assert not evaluate(model_folder("llama"), "wikitext2", window=16, batch_size=3).fresh
    asked: list[int] = []
    answer = language.TextPerplexity.answer

    def dies(self: language.TextPerplexity, session: object, batch: list[int]) -> object:
        asked.append(len(batch))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return answer(self, session, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(language.TextPerplexity, "answer", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model_folder("llama"), "wikitext2", window=16, batch_size=3, force=True)
    assert (folder / "wikitext2.jsonl").read_bytes() == whole, "what was there stays until the new one is whole"
    (folder / "wikitext2.json").unlink()
    before = len(asked)
    evaluate(model_folder("llama"), "wikitext2", window=16, batch_size=3)
    assert len(asked) - before == 7 - 3, "three batches of seven were kept"
    assert (folder / "wikitext2.jsonl").read_bytes() == whole
    assert not (folder / ".journal").exists()
    record = read_json(folder / "wikitext2.json")
    assert {"inputs", "versions", "machine", "seed", "result"} <= set(record)
    assert {"model", "data", "prompts", "task_version"} <= set(record["inputs"])


def test_masked_and_shrunk_folders_are_asked_like_any_other(
    evaluate: Evaluate, text: Path, model_folder: Folder, tmp_path: Path
) -> None:
    """A third of the neurons of one layer: what is left of it has a shape of its own."""
    base = BaseModel(model_folder("llama"))
    model: Any = base.load()
    mlp = model.model.layers[0].mlp
    with torch.no_grad():
        for parameter in (*mlp.gate_proj.parameters(), *mlp.up_proj.parameters(), mlp.down_proj.weight.mT):
            parameter[: len(mlp.up_proj.weight) // 3] = 0
    masked, small = tmp_path / "masked", tmp_path / "small"
    masked.mkdir()
    small.mkdir()
    base.save(model, masked)
    shrink_into(small, BaseModel(masked), "auto")
    done = evaluate([base.name, masked, small], "wikitext2", window=16).summary
    cells = done["rows"][0]["cells"]
    assert cells["small"][0]["value"] == pytest.approx(cells["masked"][0]["value"], rel=1e-5)
    assert cells["small"][0]["value"] != cells["llama"][0]["value"]
    assert BaseModel(small).parameters < base.parameters
    assert [round(m["sparsity"], 2) for m in done["models"]][::2] == [0, 0]


def test_models_with_other_tokens_are_not_compared(evaluate: Evaluate, text: Path, model_folder: Folder) -> None:
    (row,) = evaluate([model_folder("llama"), model_folder("bert-masked")], "wikitext2", window=16).summary["rows"]
    assert "not_compared" in row["pairs"]["bert-masked"]


def test_who_is_refused(evaluate: Evaluate, text: Path, t5_folder: Path, model_folder: Folder) -> None:
    with pytest.raises(RecipeError, match=r"--suite: language: .* is a T5ForConditionalGeneration; needed: a causal"):
        evaluate(t5_folder, suite="language")
    with pytest.raises(RecipeError, match="--limit: got 0; allowed: 1 or more"):
        language.SuiteOptions(limit=0).check()
