"""Classification of pairs of texts, in the layouts of GLUE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from composer.errors import DataError, ModelError
from composer.tasks import DataOptions
from composer.tasks.classification import ClassificationTask

from .conftest import PAIR, Write, bert_config, make_tokenizer

PAIRS = [("a good dog", "bad"), ("the man sleeps", "the woman sleeps in the snow"), ("a cat", "a cat")]
NAMES = ["entailment", "neutral", "contradiction"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return make_tokenizer("[CLS] $A [SEP]", pair=PAIR, inputs=inputs)


@pytest.fixture(scope="module")
def bert() -> Any:
    from transformers import BertForSequenceClassification

    config = bert_config()
    config.id2label, config.label2id = dict(enumerate(NAMES)), {name: i for i, name in enumerate(NAMES)}
    torch.manual_seed(0)
    return BertForSequenceClassification(config).eval()


def make(folder: Path, tokenizer: Any, model: Any, **options: Any) -> ClassificationTask:
    fields = {"data": str(folder), "max_source_length": 16, **options}
    return ClassificationTask(DataOptions.model_validate(fields), tokenizer, model.config.to_dict())


def table(first: str, second: str, label: str, labels: list[str]) -> str:
    rows = (f"7\t{a}\t{b}\t{c}\n" for (a, b), c in zip(PAIRS, labels, strict=True))
    return f"idx\t{first}\t{second}\t{label}\n{''.join(rows)}"


@pytest.mark.parametrize(
    ("first", "second", "label"),
    [
        ("sentence1", "sentence2", "label"),
        ("question", "sentence", "label"),
        ("premise", "hypothesis", "label"),
        ("question1", "question2", "is_duplicate"),
        ("sentence1", "sentence2", "gold_label"),
        ("#1 String", "#2 String", "Quality"),
    ],
)
def test_glue_layouts(write: Write, tokenizer: Any, bert: Any, first: str, second: str, label: str) -> None:
    folder = write({"dev_matched.tsv": table(first, second, label, ["neutral", "0", "Contradiction"])})
    data = make(folder, tokenizer, bert).load("valid")
    assert data.references == ["neutral", "entailment", "contradiction"]
    for feature, (a, b) in zip(data.features, PAIRS, strict=True):
        wanted = tokenizer(a, b)
        assert feature["input_ids"] == wanted["input_ids"]
        assert feature["token_type_ids"] == wanted["token_type_ids"]
        assert 1 in wanted["token_type_ids"]


def test_columns_of_pairs_can_be_named(write: Write, tokenizer: Any, bert: Any) -> None:
    folder = write({"test.tsv": table("left", "right", "label", ["0", "1", "2"])})
    data = make(folder, tokenizer, bert, text_column="left", pair_column="right").load("test")
    assert data.features[0]["input_ids"] == tokenizer(*PAIRS[0])["input_ids"]
    alone = make(folder, tokenizer, bert, text_column="right").load("test")
    assert alone.features[0]["input_ids"] == tokenizer(PAIRS[0][1])["input_ids"]
    with pytest.raises(DataError, match=r"no pair column 'wright'; .*; did you mean 'right'"):
        make(folder, tokenizer, bert, text_column="left", pair_column="wright").load("test")
    folder = write({"test.tsv": table("premise", "hypothesis", "label", ["0", "1", "2"])})
    data = make(folder, tokenizer, bert, pair_column="hypothesis").load("test")
    assert data.features[0]["input_ids"] == tokenizer(*PAIRS[0])["input_ids"]


def test_long_pairs_lose_of_the_longer_text_and_are_counted(write: Write, tokenizer: Any, bert: Any) -> None:
    folder = write({"test.tsv": table("premise", "hypothesis", "label", ["0", "1", "2"])})
    data = make(folder, tokenizer, bert, max_source_length=10).load("test")
    assert data.truncated == 1
    ids, types = data.features[1]["input_ids"], data.features[1]["token_type_ids"]
    assert (len(ids), types.count(1)) == (10, 5)  # type: ignore[arg-type, union-attr]


def test_loss_score_and_predictions_of_pairs(write: Write, tokenizer: Any, bert: Any) -> None:
    task = make(write({"test.tsv": table("premise", "hypothesis", "label", ["0", "1", "2"])}), tokenizer, bert)
    data = task.load("test")
    with torch.no_grad():
        logits = torch.cat([bert(**tokenizer(a, b, return_tensors="pt")).logits for a, b in PAIRS])
    loss, count = task.loss(bert, task.collate(data.features))
    assert loss.item() == pytest.approx(-float(logits.log_softmax(1).diagonal().mean()), rel=1e-5)
    assert count == 3
    right = (logits.argmax(1) == torch.arange(3)).float().mean()
    assert task.score(bert, data, batch_size=2).metrics["accuracy"] == pytest.approx(float(right))
    best = logits.softmax(1).max(1)
    expected = [f"{NAMES[i]} ({p:.2f})" for i, p in zip(best.indices, best.values, strict=True)]
    assert task.predict(bert, [f"{a}\t{b}" for a, b in PAIRS]) == expected
    (alone,) = task.predict(bert, ["a cat"])
    with torch.no_grad():
        assert alone.startswith(NAMES[int(bert(**tokenizer("a cat", return_tensors="pt")).logits.argmax())])


@pytest.mark.parametrize(
    "files",
    [
        {"dev.tsv": table("sentence1", "sentence2", "score", ["5.000", "3.800", "0.000"])},
        {"dev.jsonl": '{"sentence1": "a", "sentence2": "b", "label": 5.0}\n' * 2
         + '{"sentence1": "a", "sentence2": "b", "label": 3.8}\n'},
    ],
)  # fmt: skip
def test_regression_is_refused(write: Write, tokenizer: Any, bert: Any, files: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r":3: (score|label) is 3\.80*: scores \(regression, as in STS-B\) are not"):
        make(write(files), tokenizer, bert).load("valid")


def test_a_model_for_regression_is_refused(write: Write, tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=r"two labels or more; .* \(regression is not supported"):
        ClassificationTask(DataOptions(data="x"), tokenizer, {"id2label": {"0": "LABEL_0"}, "pad_token_id": 0})


def test_hidden_labels_of_glue(write: Write, tokenizer: Any, bert: Any) -> None:
    folder = write({"test.jsonl": '{"premise": "a", "hypothesis": "a", "label": -1}'})
    with pytest.raises(DataError, match=r"-1 is no label of the model \(hidden, .* with test_split\); allowed: ent"):
        make(folder, tokenizer, bert).load("test")


def test_two_validation_splits(write: Write, tokenizer: Any, bert: Any) -> None:
    text = table("premise", "hypothesis", "label", ["0", "1", "2"])
    folder = write({f"dev_{name}.tsv": text for name in ("matched", "mismatched")})
    with pytest.raises(DataError, match=r"several splits for validation: dev_matched, dev_mismatched; .*valid_split"):
        make(folder, tokenizer, bert).load("valid")
    data = make(folder, tokenizer, bert, valid_split="dev_mismatched").load("valid")
    assert data.source == "dev_mismatched.tsv"
    with pytest.raises(DataError, match=r"valid_split 'dev_miss' is not there; .* did you mean"):
        make(folder, tokenizer, bert, valid_split="dev_miss").load("valid")
