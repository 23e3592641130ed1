"""Texts with any number of labels, against scikit-learn and one forward pass for each text."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score

from composer.errors import DataError, ModelError
from composer.tasks import DataOptions
from composer.tasks.data.formats import Table
from composer.tasks.data.labels import Labels
from composer.tasks.loss import loss_and_logits, mean_loss
from composer.tasks.multi_label import MultiLabelTask
from composer.training.distillation import divergence

from .conftest import VOCABULARY, Write

LABELS = Labels(("joy", "anger", "fear"))
TEXTS = ["a good dog", "bad", "the man sleeps in the snow", "a cat"]
HAVE = [["joy"], ["anger", "fear"], [], ["fear", "joy"]]
TRUTH = [[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 1]]


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(1)
    sizes = {"vocab_size": VOCABULARY, "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    named = {"id2label": dict(enumerate(LABELS.names)), "problem_type": "multi_label_classification"}
    config = DistilBertConfig(**sizes, **named, pad_token_id=0, initializer_range=0.5)
    return DistilBertForSequenceClassification(config).eval()


def test_loss_figures_and_answers_are_those_of_single_passes(write: Write, bert_tokenizer: Any, model: Any) -> None:
    rows = (json.dumps({"text": text, "labels": have}) for text, have in zip(TEXTS, HAVE, strict=True))
    folder = write({"test.jsonl": "\n".join(rows)})
    task = MultiLabelTask(DataOptions(data=str(folder)), bert_tokenizer, model.config.to_dict())
    data = task.load("test")
    assert data.references == ["joy", "anger, fear", "(none)", "joy, fear"]
    with torch.no_grad():
        logits = torch.cat([model(**bert_tokenizer(text, return_tensors="pt")).logits for text in TEXTS])
    truth = torch.tensor(TRUTH)
    loss = torch.nn.BCEWithLogitsLoss()(logits, truth.float())
    assert mean_loss(model, task, data, batch_size=3) == pytest.approx(loss.item(), rel=1e-5)
    score = task.score(model, data, batch_size=3)
    assert score.loss == pytest.approx(loss.item(), rel=1e-5)
    answers = (logits > 0).int().numpy()
    for average in ("micro", "macro"):
        expected = f1_score(TRUTH, answers, average=average, zero_division=0)
        assert score.metrics[f"f1_{average}"] == pytest.approx(expected)
    assert score.details["texts_per_label"] == {"joy": 2, "anger": 1, "fear": 2}
    named = [{name for name, z in zip(LABELS.names, row, strict=True) if z > 0} for row in logits.tolist()]
    said = [set() if a == "(none)" else {one.split(" (")[0] for one in a.split(", ")} for a in
            task.predict(model, TEXTS)]  # fmt: skip
    assert said == named
    assert any(named)


def test_a_teacher_is_heard_by_its_yes_or_no_to_each_label(bert_tokenizer: Any, model: Any) -> None:
    task = MultiLabelTask(DataOptions(data="none"), bert_tokenizer, model.config.to_dict())
    batch = task.collate([{**f, "labels": [0, 1, 0]} for f in task._features_of(TEXTS[:2])])
    _, count, logits = loss_and_logits(model, task, batch)
    assert logits is not None
    assert (count, logits.shape) == (2, (2, 3, 2))
    assert torch.allclose(logits.softmax(-1)[..., 1], (logits[..., 1]).sigmoid())
    assert divergence(logits, logits).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "cells",
    [HAVE, [[0], [1, 2], [], [2, 0]], TRUTH, ["joy", "anger;fear", "", "fear, Joy"], ["0", "1|2", None, "0,2"]],
)
def test_labels_are_read_as_people_write_them(cells: list[Any]) -> None:
    rows, wrong = LABELS.resolve_several(Table("a", "a", {"labels": cells}, range(1, 5)), "labels")
    assert (rows, wrong) == (["joy", "anger, fear", "(none)", "joy, fear"], [])


def test_a_label_that_the_model_lacks_is_named() -> None:
    _, wrong = LABELS.resolve_several(Table("a", "a", {"labels": [["joy"], ["glee"]]}, range(1, 3)), "labels")
    assert wrong == ["a:2: labels ['glee'] is no label of the model; allowed: joy or 0, anger or 1, fear or 2"]


def test_a_head_for_one_label_is_refused(bert_tokenizer: Any, model: Any) -> None:
    config = model.config.to_dict() | {"problem_type": "single_label_classification"}
    with pytest.raises(ModelError, match="allowed for --task multi_label_classification: multi_label_classification"):
        MultiLabelTask(DataOptions(data="none"), bert_tokenizer, config)


def test_a_text_without_a_column_of_labels_is_refused(write: Write, bert_tokenizer: Any, model: Any) -> None:
    folder = write({"test.jsonl": json.dumps({"text": "a dog"})})
    task = MultiLabelTask(DataOptions(data=str(folder)), bert_tokenizer, model.config.to_dict())
    with pytest.raises(DataError, match="no label column"):
        task.load("test")
