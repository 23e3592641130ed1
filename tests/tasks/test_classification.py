from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from composer.errors import DataError, ModelError
from composer.tasks import DataOptions
from composer.tasks.classification import ClassificationTask
from composer.tasks.data.formats import Table
from composer.tasks.data.labels import Labels

from .conftest import Write

TEXTS = ["a good dog", "bad", "the man sleeps in the snow", "a cat", "good good"]
NAMES = ["positive", "negative", "negative", "positive", "positive"]


@pytest.fixture
def folder(write: Write) -> Path:
    rows = "".join(f"{text}\t{name}\n" for text, name in zip(TEXTS, NAMES, strict=True))
    return write({"test.tsv": f"sentence\tlabel\n{rows}"})


def make(folder: Path, tokenizer: Any, model: Any, **options: Any) -> ClassificationTask:
    fields = {"data": str(folder), **options}
    return ClassificationTask(DataOptions.model_validate(fields), tokenizer, model.config.to_dict())


def singly(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def test_load_and_collate(folder: Path, bert_tokenizer: Any, distilbert: Any) -> None:
    task = make(folder, bert_tokenizer, distilbert, max_source_length=5)
    data = task.load("test")
    assert data.references == NAMES
    assert [feature["labels"] for feature in data.features] == [1, 0, 0, 1, 1]
    assert data.truncated == 1
    batch = task.collate(data.features[:2])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert task.real_tokens(batch)["encoder"].tolist() == batch["attention_mask"].bool().tolist()


def test_further_inputs_come_from_the_tokenizer(folder: Path, distilbert: Any) -> None:
    from .conftest import make_tokenizer

    tokenizer = make_tokenizer("[CLS] $A [SEP]", inputs=["input_ids", "token_type_ids", "attention_mask"])
    task = make(folder, tokenizer, distilbert)
    batch = task.collate(task.load("test").features)
    assert batch["token_type_ids"].shape == batch["input_ids"].shape


def test_loss_is_the_mean_over_examples(folder: Path, bert_tokenizer: Any, distilbert: Any) -> None:
    task = make(folder, bert_tokenizer, distilbert)
    loss, count = task.loss(distilbert, task.collate(task.load("test").features))
    rows = singly(distilbert, bert_tokenizer, TEXTS).log_softmax(-1)
    expected = -sum(float(row[i]) for row, i in zip(rows, [1, 0, 0, 1, 1], strict=True)) / 5
    assert count == 5
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.requires_grad
    assert task.chance() == pytest.approx(math.log(2))


def test_score_agrees_with_sklearn_on_single_texts(folder: Path, bert_tokenizer: Any, distilbert: Any) -> None:
    task = make(folder, bert_tokenizer, distilbert)
    score = task.score(distilbert, task.load("test"), batch_size=2)
    logits = singly(distilbert, bert_tokenizer, TEXTS)
    answers, truth = logits.argmax(-1).tolist(), [1, 0, 0, 1, 1]
    assert score.metrics["accuracy"] == accuracy_score(truth, answers)
    assert score.metrics["f1"] == f1_score(truth, answers, pos_label=1, zero_division=0)
    assert score.details["majority_accuracy"] == 0.6
    assert score.loss == pytest.approx(log_loss(truth, logits.double().softmax(-1)), rel=1e-5)
    best = logits.softmax(-1).max(-1)
    expected = [f"{('negative', 'positive')[i]} ({p:.2f})" for i, p in zip(best.indices, best.values, strict=True)]
    assert task.predict(distilbert, TEXTS, batch_size=2) == expected
    assert task.predict(distilbert, []) == []


class Fixed(torch.nn.Module):
    """Answers class ids that it is given, told apart by the first word."""

    def __init__(self, answers: dict[int, int], classes: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.answers, self.classes = answers, classes

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        ids = torch.tensor([self.answers[int(row[1])] for row in input_ids])
        return type("Out", (), {"logits": torch.nn.functional.one_hot(ids, self.classes) * 9.0})


def test_more_than_two_labels_use_macro_f1(write: Write, bert_tokenizer: Any) -> None:
    words, truth, answers = ["man", "dog", "cat", "snow", "the"], [0, 1, 2, 2, 0], [0, 1, 1, 2, 2]
    folder = write({"test.csv": "text,label\n" + "".join(f"{w},{t}\n" for w, t in zip(words, truth, strict=True))})
    config = {"id2label": {"0": "a", "1": "b", "2": "c"}}
    task = ClassificationTask(DataOptions(data=str(folder)), bert_tokenizer, config)
    ids = bert_tokenizer.convert_tokens_to_ids(words)
    score = task.score(Fixed(dict(zip(ids, answers, strict=True)), 3), task.load("test"), batch_size=2)
    assert score.metrics["accuracy"] == 0.6
    assert score.metrics["f1"] == pytest.approx(f1_score(truth, answers, average="macro"))


@pytest.mark.parametrize(
    ("value", "name"),
    [("negative", "negative"), ("1", "positive"), (0, "negative"), (True, "positive"), (1.0, "positive")]
    + [("POSITIVE", "positive"), (" Negative ", "negative")]
    + [(value, None) for value in (2, -1, "2", "²", "", None, 0.5, "positiv")],
)
def test_labels_as_names_or_ids(value: Any, name: str | None) -> None:
    assert Labels(("negative", "positive")).find(value) == name


def test_names_go_before_ids() -> None:
    assert Labels(("1", "0")).find("1") == "1"
    assert Labels(("Yes", "yes")).find("yes") == "yes"
    assert Labels(("Yes", "yes")).find("YES") is None


def test_labels_of_a_config() -> None:
    assert Labels.of({"id2label": {"1": "b", "0": "a"}}).names == ("a", "b")
    assert Labels.of({"label2id": {"b": 1, "a": 0}}).names == ("a", "b")
    assert Labels.of({"num_labels": 3}).names == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert len(Labels.of({})) == 2
    with pytest.raises(ModelError, match="classification needs two labels or more"):
        Labels.of({"id2label": {"0": "LABEL_0"}})
    with pytest.raises(ModelError, match=r"id2label needs ids 0, 1, \.\.\. with different names"):
        Labels.of({"id2label": {"1": "a", "2": "b"}})


def test_a_dataset_that_numbers_its_classes_otherwise_is_read_by_name() -> None:
    labels = Labels(("negative", "positive"))
    for names in (["positive", "negative"], ["POSITIVE", "Negative"]):
        table = Table("x", "x", {"label": [0, 1]}, range(1, 3), {"label": names})
        assert labels.resolve(table, "label") == (["positive", "negative"], [])
    unknown = Table("x", "x", {"label": [0, 1]}, range(1, 3), {"label": ["pos", "neg"]})
    assert labels.resolve(unknown, "label") == (["negative", "positive"], [])


def test_wrong_labels_name_row_and_allowed(write: Write, bert_tokenizer: Any, distilbert: Any) -> None:
    task = make(write({"test.tsv": "text\tlabel\na\tgood\nb\t1\nc\t\n"}), bert_tokenizer, distilbert)
    with pytest.raises(
        DataError,
        match=r"test\.tsv:2: label 'good' is no label of the model; allowed: negative or 0, positive or 1",
    ) as caught:
        task.load("test")
    assert ["test.tsv:4: label ''" in problem for problem in caught.value.problems] == [False, True]


def test_columns_are_guessed_or_asked_for(write: Write, bert_tokenizer: Any, distilbert: Any) -> None:
    rows = "first\tsecond\tsentiment\na\tb\t1\n"
    folder = write({"test.tsv": rows})
    with pytest.raises(DataError, match=r"no text column 'sentence' or .*; columns: first, second, sentiment"):
        make(folder, bert_tokenizer, distilbert).load("test")
    data = make(folder, bert_tokenizer, distilbert, text_column="first").load("test")
    assert data.references == ["positive"]


def test_a_length_beyond_the_position_table(folder: Path, bert_tokenizer: Any, distilbert: Any) -> None:
    with pytest.raises(DataError, match=r"max_source_length: got 129, the model reads at most 128 tokens"):
        make(folder, bert_tokenizer, distilbert, max_source_length=129)
