"""From rates to fine-tuned models, and these models in a Python that has never heard of composer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import composer
from composer.models.folder import BaseModel

STRANGER = """
import json, sys
import torch, transformers

torch.set_num_threads(1)
results = {}
for folder, auto in json.loads(sys.argv[1]):
    model, report = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["the old man sees a dog", "a cat"], padding=True, return_tensors="pt")
    more = {"decoder_input_ids": torch.tensor([[0, 7, 8], [0, 9, 4]])} if "Seq2Seq" in auto else {}
    with torch.no_grad():
        logits = model.eval()(**batch, **more).logits
    answer = model.generate(**batch, max_new_tokens=5).tolist() if more else []
    problems = {name: sorted(map(str, found)) for name, found in report.items() if found}
    results[folder] = {"logits": logits.tolist(), "problems": problems, "answer": answer}
assert not [name for name in sys.modules if name.split(".")[0] == "composer"]
print(json.dumps(results))
"""
FAMILIES = {
    "t5": "AutoModelForSeq2SeqLM",
    "distilbert": "AutoModelForSequenceClassification",
}
"""One of each kind goes the whole way; tests/models/test_every_family.py reloads a composed model of every family."""
MODELS = ("0", "0-finetuned", "0-baseline", "1")


@pytest.fixture(scope="module")
def made(
    model_folder: Callable[[str], Path],
    translation_data: Path,
    classification_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """For each family a folder in which the whole way was gone by the functions that the package offers."""
    folders = {}
    for name, auto in FAMILIES.items():
        folders[name] = tmp_path_factory.mktemp("whole") / name
        data = translation_data if "Seq2Seq" in auto else classification_data
        given: dict[str, Any] = {
            "model": str(model_folder(name)),
            "data": str(data),
            "folder": str(folders[name]),
            "attention": [0.25, 0.5],
            "linear": [0.3, 0.7],
            "block": {"steps": 3, "batch_size": 4},
            "finetune": {"steps": 3, "batch_size": 4, "evaluations": 1, "learning_rate": 1e-3},
            "max_source_length": 32,
            "max_target_length": 12,
        }
        recipe = composer.load_recipe(given=given, file=False)
        composer.generate_config(recipe)
        composer.generate_scheme(recipe)
        composer.prune(recipe)
        composer.finetune_blocks(recipe)
        composer.build_model(recipe, 0)
        composer.build_model(recipe, 1)
        composer.finetune_model(recipe, "composed", 0)
        composer.finetune_model(recipe, "baseline", 0)
        composer.evaluate(recipe, [folders[name] / "models" / "0-finetuned"])
    return folders


@pytest.fixture(scope="module")
def stranger(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What plain transformers make of the folders."""
    folders = [(str(made[name] / "models" / model), auto) for name, auto in FAMILIES.items() for model in MODELS]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", STRANGER, json.dumps(folders)],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return dict(json.loads(run.stdout))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_compute_the_same(
    family: str, model: str, made: dict[str, Path], stranger: dict[str, Any]
) -> None:
    from transformers import AutoTokenizer

    folder = made[family] / "models" / model
    seen = stranger[str(folder)]
    assert seen["problems"] == {}
    batch = AutoTokenizer.from_pretrained(folder)(
        ["the old man sees a dog", "a cat"], padding=True, return_tensors="pt"
    )
    seq2seq = "Seq2Seq" in FAMILIES[family]
    more = {"decoder_input_ids": torch.tensor([[0, 7, 8], [0, 9, 4]])} if seq2seq else {}
    with torch.no_grad():
        logits = BaseModel(folder).load()(**batch, **more).logits
    assert float((logits - torch.tensor(seen["logits"])).abs().max()) < 1e-5
    assert len(seen["answer"]) == (2 if seq2seq else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_configurations_and_sides_are_different_models(
    family: str, stranger: dict[str, Any], made: dict[str, Path]
) -> None:
    models = ("0", "0-baseline", "1")
    logits = [json.dumps(stranger[str(made[family] / "models" / model)]["logits"]) for model in models]
    assert len(set(logits)) == len(models)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_measured_is_the_sparsity_of_the_plan(family: str, made: dict[str, Path]) -> None:
    result = json.loads((made[family] / "results" / "0-finetuned.json").read_text())["result"]
    rates = json.loads((made[family] / "conf.json").read_text())["configurations"][0]
    parameters = dict(BaseModel(made[family] / "models" / "0").load().named_parameters())
    removed, weights = 0, 0
    for path, rate in rates.items():
        if f"{path}.weight" in parameters:
            size = parameters[f"{path}.weight"].numel()
            removed += round(rate * size)
        else:
            names = [n for n in parameters if n.startswith(f"{path}.") and n.split(".")[-2][0] in "qkv"]
            size = sum(parameters[n].numel() for n in names if n.endswith(".weight"))
            removed += round(rate * 4) * size // 4
        weights += size
    assert result["sparsity"] == pytest.approx(removed / weights, abs=1e-12)
