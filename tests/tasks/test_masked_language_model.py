from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.errors import DataError, ModelError
from composer.tasks import DataOptions, Examples
from composer.tasks.masked_language_model import MaskedLanguageModelTask

from .conftest import WORDS, Write, make_tokenizer

CLS, SEP, MASK = 3, 4, 5


def words(count: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def make(folder: Path, tokenizer: Any, config: Any, **options: Any) -> MaskedLanguageModelTask:
    fields = {"data": str(folder), "max_source_length": 22, **options}
    return MaskedLanguageModelTask(DataOptions.model_validate(fields), tokenizer, config)


@pytest.fixture
def folder(write: Write) -> Path:
    return write({"test.txt": words(2000)})


def rows(data: Examples) -> list[tuple[list[int], list[int]]]:
    return [(feature["input_ids"], feature["labels"]) for feature in data.features]  # type: ignore[misc]


def test_hidden_tokens_and_the_text_around_them(folder: Path, bert_tokenizer: Any, masked_bert: Any) -> None:
    data = make(folder, bert_tokenizer, masked_bert.config.to_dict()).load("test")
    text = bert_tokenizer(words(2000), add_special_tokens=False)["input_ids"]
    assert len(data) == 100
    for i, (ids, labels) in enumerate(rows(data)):
        assert (ids[0], ids[-1], len(ids)) == (CLS, SEP, 22)
        before = [label if label != -100 else token for token, label in zip(ids, labels, strict=True)][1:-1]
        assert before == text[20 * i : 20 * i + 20]
        assert labels[0] == labels[-1] == -100
        assert sum(label != -100 for label in labels) == 3  # round(0.15 * 20)


def test_the_shares_of_what_happens_to_them(folder: Path, bert_tokenizer: Any, masked_bert: Any) -> None:
    whole = make(folder, bert_tokenizer, masked_bert.config.to_dict(), max_source_length=None)
    assert whole.window == 64
    happened: Counter[str] = Counter()
    for seed in range(10):
        data = make(folder, bert_tokenizer, masked_bert.config.to_dict(), seed=seed).load("test")
        for ids, labels in rows(data):
            for token, label in zip(ids, labels, strict=True):
                if label != -100:
                    assert token == MASK or token >= 6  # never another special token
                    happened["masked" if token == MASK else "kept" if token == label else "replaced"] += 1
    assert happened.total() == 3000
    assert happened["masked"] / 3000 == pytest.approx(0.8, abs=0.02)
    # A random token is by chance the one that was there.
    assert happened["replaced"] / 3000 == pytest.approx(0.1 * (1 - 1 / len(WORDS)), abs=0.02)


def test_large_windows_have_the_shares_to_within_one(write: Write, bert_tokenizer: Any) -> None:
    folder = write({"test.txt": words(400)})
    bert_tokenizer = make_tokenizer("[CLS] $A [SEP]")
    bert_tokenizer.model_max_length = 10**30
    data = make(folder, bert_tokenizer, {}, max_source_length=402).load("test")
    ((ids, labels),) = rows(data)
    assert sum(label != -100 for label in labels) == 60
    assert abs(sum(token == MASK for token in ids) - 48) <= 1
    changed = sum(label not in (-100, token) for token, label in zip(ids, labels, strict=True))
    assert 48 + 2 <= changed <= 48 + 7


def test_the_draw_depends_on_seed_and_window_only(folder: Path, bert_tokenizer: Any, masked_bert: Any) -> None:
    config = masked_bert.config.to_dict()
    first, again, few, other = (
        rows(make(folder, bert_tokenizer, config, **options).load("test"))
        for options in ({}, {}, {"test_size": 7}, {"seed": 1})
    )
    assert first == again
    assert few == first[:7]
    asked = [[i for i, label in enumerate(labels) if label != -100] for _, labels in first[:2]]
    assert asked[0] != asked[1]
    assert first != other


def test_perplexity_of_the_hidden_tokens(folder: Path, bert_tokenizer: Any, masked_bert: Any) -> None:
    task = make(folder, bert_tokenizer, masked_bert.config.to_dict(), test_size=5)
    data = task.load("test")
    surprises = []
    for ids, labels in rows(data):
        with torch.no_grad():
            chances = masked_bert(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        surprises += [-float(chances[i, label]) for i, label in enumerate(labels) if label != -100]
    expected = sum(surprises) / 15
    for batch_size in (1, 64):
        score = task.score(masked_bert, data, batch_size=batch_size)
        assert score.metrics["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)
        assert (score.loss, score.details["tokens"]) == (pytest.approx(expected, rel=1e-5), 15)


def test_a_short_window_and_one_of_special_tokens_only(write: Write, bert_tokenizer: Any, masked_bert: Any) -> None:
    config = masked_bert.config.to_dict()
    task = make(write({"test.txt": "dog"}), bert_tokenizer, config)
    ((_, labels),) = rows(task.load("test"))
    assert [label != -100 for label in labels] == [False, True, False]
    batch = task.collate([*task.load("test").features, {"input_ids": [CLS, SEP], "labels": [-100, -100]}])
    assert task.real_tokens(batch)["encoder"].tolist() == [[True, True, True], [True, True, False]]
    loss, count = task.loss(masked_bert, batch)
    assert (math.isfinite(loss.item()), count) == (True, 1)
    unknown = make(write({"test.txt": "strange words"}), bert_tokenizer, config)
    with pytest.raises(DataError, match="nothing but special and unknown tokens"):
        unknown.load("test")


def test_predict_fills_the_masks(write: Write, bert_tokenizer: Any, masked_bert: Any) -> None:
    task = make(write({}), bert_tokenizer, masked_bert.config.to_dict())
    ids = bert_tokenizer("a [MASK] sees the [MASK]", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = masked_bert(ids).logits[0, [2, 5]].softmax(-1).max(-1)
    named = bert_tokenizer.convert_ids_to_tokens(best.indices.tolist())
    expected = ", ".join(f"{word} ({p:.2f})" for word, p in zip(named, best.values.tolist(), strict=True))
    assert task.predict(masked_bert, ["a [MASK] sees the [MASK]"]) == [expected]
    with pytest.raises(DataError, match=r"text 'a dog': no \[MASK\] in it"):
        task.predict(masked_bert, ["a dog"])


def test_what_does_not_fit(write: Write, bert_tokenizer: Any, masked_bert: Any) -> None:
    config = masked_bert.config.to_dict()
    with pytest.raises(DataError, match="max_source_length: got 2, a window needs at least 3 tokens"):
        make(write({}), bert_tokenizer, config, max_source_length=2)
    with pytest.raises(DataError, match="max_source_length: got 65, the model reads at most 64 tokens"):
        make(write({}), bert_tokenizer, config, max_source_length=65)
    maskless = make_tokenizer("$A")
    maskless.mask_token = None
    with pytest.raises(ModelError, match="the tokenizer has no mask token"):
        make(write({}), maskless, config)
