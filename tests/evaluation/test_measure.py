"""What ``results/*.json`` says about a model: loss, metrics, sparsity, time and memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
from torch import nn

from composer.evaluation.measure import measure
from composer.evaluation.uncertainty import wilson
from composer.models.folder import BaseModel
from composer.tasks import DataOptions, Task, open_task
from composer.tensors.masks import zeros_per_target

KEYS = {
    "split",
    "source",
    "examples",
    "loss",
    "metrics",
    "intervals",
    "details",
    "sparsity",
    "seconds_per_example",
    "memory_bytes",
}


def opened(folder: Path, data: Path) -> tuple[BaseModel, Task]:
    base = BaseModel(folder)
    options = DataOptions(data=str(data), max_source_length=32, max_target_length=12)
    return base, open_task(options, folder, base.config)


@torch.no_grad()
def test_classification_by_hand(distilbert_folder: Path, classification_data: Path) -> None:
    base, task = opened(distilbert_folder, classification_data)
    model, data = base.load(), task.load("test")
    logits = torch.cat([model(torch.tensor([f["input_ids"]])).logits for f in data.features]).double()
    truth = torch.tensor([f["labels"] for f in data.features])
    right = int((logits.argmax(1) == truth).sum())
    hits = int(((logits.argmax(1) == 1) & (truth == 1)).sum())
    named, true = int((logits.argmax(1) == 1).sum()), int((truth == 1).sum())

    result = measure(model, base.layout, task, data)
    assert result.keys() == KEYS
    assert (result["split"], result["examples"], result["source"]) == ("test", 8, "test.tsv")
    assert result["metrics"] == pytest.approx({"accuracy": right / 8, "f1": 2 * hits / (named + true)})
    assert result["intervals"]["accuracy"] == pytest.approx(wilson(right / 8, 8))
    assert result["intervals"].keys() == {"accuracy", "f1"}
    chosen = logits.log_softmax(1)[range(8), truth]
    assert result["loss"] == pytest.approx(-float(chosen.mean()), rel=1e-5)


@torch.no_grad()
def test_translation_by_hand(t5_folder: Path, translation_data: Path) -> None:
    base, task = opened(t5_folder, translation_data)
    model, data = base.load(), task.load("test")
    total, count = 0.0, 0
    for feature in data.features:
        labels: Any = feature["labels"]
        logits = model(input_ids=torch.tensor([feature["input_ids"]]), labels=torch.tensor([labels])).logits.double()
        total -= float(logits.log_softmax(-1)[0][range(len(labels)), labels].sum())
        count += len(labels)
    sources = (translation_data / "test_tiny.en").read_text().splitlines()
    references = (translation_data / "test_tiny.de").read_text().splitlines()
    answers = task.predict(model, sources)

    result = measure(model, base.layout, task, data)
    assert result.keys() == KEYS
    assert result["loss"] == pytest.approx(total / count, rel=1e-5)
    assert result["metrics"]["bleu"] == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert result["metrics"]["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    assert result["details"]["bleu_signature"].startswith("nrefs:1|case:mixed|")
    low, high = result["intervals"]["chrf"]
    assert low <= result["metrics"]["chrf"] <= high


def test_sparsity_counts_exact_zeros_of_target_weights(distilbert_folder: Path, classification_data: Path) -> None:
    base, task = opened(distilbert_folder, classification_data)
    model = base.load()
    linear = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and ".layer." in name]
    with torch.no_grad():
        for module in linear[:3]:
            module.weight[0] = 0.0
        model.classifier.weight.zero_()  # no target
    zeros = sum(module.in_features for module in linear[:3])
    result = measure(model, base.layout, task, task.load("test"))
    assert result["sparsity"] == pytest.approx(zeros / sum(module.weight.numel() for module in linear))
    assert sum(zero for zero, _ in zeros_per_target(model, base.layout).values()) == zeros


def test_time_and_memory_are_positive_and_the_model_is_left_as_it_was(t5_folder: Path, translation_data: Path) -> None:
    base, task = opened(t5_folder, translation_data)
    model = base.load().train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    result = measure(model, base.layout, task, task.load("test"))
    assert result["memory_bytes"] > 2**20
    assert math.isfinite(result["seconds_per_example"])
    assert result["seconds_per_example"] > 0
    assert model.training
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_batch_size_changes_no_figure(t5_folder: Path, translation_data: Path) -> None:
    base, task = opened(t5_folder, translation_data)
    model, data = base.load(), task.load("test")
    one, many = (measure(model, base.layout, task, data, batch_size=size) for size in (1, 8))
    assert one["loss"] == pytest.approx(many["loss"], rel=1e-6)
    assert one["metrics"] == pytest.approx(many["metrics"])
