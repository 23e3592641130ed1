"""The layouts of published data sets, as they lie in ``../shared``, with a real tokenizer and tiny models."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.tasks import DataOptions, Task, load_tokenizer
from composer.tasks.classification import ClassificationTask
from composer.tasks.language_model import LanguageModelTask
from composer.tasks.masked_language_model import MaskedLanguageModelTask
from composer.tasks.metrics.squad import squad_metrics
from composer.tasks.question_answering import QuestionAnsweringTask

SHARED = Path(__file__).parents[3] / "shared"
TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A word-piece tokenizer of 30,522 tokens."""
    if not SHARED.is_dir():
        assert not os.environ.get("CI"), f"{SHARED}: no such folder; CI runs on real data"
        pytest.skip("../shared is not here")
    return load_tokenizer(SHARED / "models" / "distilbert-mini-sst2")


def model(name: str, tokenizer: Any, **more: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    vocabulary = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if name.startswith("GPT2"):
        config: Any = transformers.GPT2Config(**vocabulary, n_embd=8, n_layer=1, n_head=1, n_positions=512)
    else:
        config = transformers.BertConfig(**vocabulary, **TINY, **more)
    return getattr(transformers, name)(config).eval()


def opened(kind: Any, folder: str, tokenizer: Any, network: Any, **options: Any) -> Task:
    return kind(DataOptions(data=str(SHARED / "data" / folder), **options), tokenizer, network.config.to_dict())  # type: ignore[no-any-return]


def test_wikitext_perplexity(tokenizer: Any) -> None:
    network = model("GPT2LMHeadModel", tokenizer)
    task = opened(LanguageModelTask, "wikitext-2", tokenizer, network, test_size=2, test_split="wiki.test")
    data = task.load("test")
    assert "wiki.test.raw" in data.source
    begin = tokenizer.decode(data.features[0]["input_ids"], skip_special_tokens=True)
    assert begin.startswith("= robert boulter = robert boulter is an english film")
    score = task.score(network, data)
    # An untrained model knows nothing: near the size of its vocabulary.
    assert math.log(score.metrics["perplexity"]) == pytest.approx(math.log(len(tokenizer)), abs=0.1)
    assert score.details["tokens"] == 2 * 511


def test_c4_sample_is_one_file_of_documents(tokenizer: Any) -> None:
    network = model("BertForMaskedLM", tokenizer)
    options = {"max_source_length": 128, "valid_size": 8}
    task = opened(MaskedLanguageModelTask, "c4_sample", tokenizer, network, **options)
    data = task.load("valid")
    assert "50 rows held out for validation with seed 0" in data.source
    score = task.score(network, data)
    assert score.details["tokens"] == 8 * round(0.15 * 126)
    assert math.isfinite(score.metrics["perplexity"])


@pytest.mark.parametrize(
    ("folder", "labels", "texts"),
    [
        ("glue/mnli", ["ENTAILMENT", "NEUTRAL", "CONTRADICTION"], 2),
        ("glue/cola", ["unacceptable", "acceptable"], 1),
        ("sst2", ["negative", "positive"], 1),
        ("imdb", ["negative", "positive"], 1),
    ],
)
def test_classification(tokenizer: Any, folder: str, labels: list[str], texts: int) -> None:
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    network = model("BertForSequenceClassification", tokenizer, **names)
    task = opened(ClassificationTask, folder, tokenizer, network, train_size=8, valid_size=16)
    data = task.load("valid")
    ends = [feature["input_ids"].count(tokenizer.sep_token_id) for feature in data.features]  # type: ignore[union-attr]
    assert set(ends) == {texts}
    assert set(data.references) <= set(labels)
    assert len(task.load("train")) == 8
    assert 0 <= task.score(network, data).metrics["accuracy"] <= 1


def test_squad(tokenizer: Any) -> None:
    network = model("BertForQuestionAnswering", tokenizer)
    task = opened(QuestionAnsweringTask, "squad_v2", tokenizer, network, max_source_length=128, valid_size=60)
    data = task.load("valid")
    assert "dev-v2.0-cs224n.json; first 60 of 6,078 rows; 60 questions in" in data.source
    for feature, reference in zip(data.features, data.references, strict=True):
        row: dict[str, Any] = json.loads(reference)
        place: Any = feature
        if place["start_positions"] != place["null"]:
            first, last = place["starts"][place["start_positions"]], place["ends"][place["end_positions"]]
            text, start = json.loads(row["answers"])[0]
            # A token may be longer than the answer: "Norman" of "Norman's".
            assert first <= start
            assert last >= start + len(text)
            assert text in row["context"][first:last]
    score = task.score(network, data)
    assert score.metrics.keys() >= {"exact_match", "answer_f1", "has_answer_f1", "no_answer_exact"}
    assert score.details["questions"] == 60
    wanted = [[text for text, _ in json.loads(json.loads(reference)["answers"])] for reference in data.references]
    right = squad_metrics([golds[0] if golds else "" for golds in wanted], wanted)
    assert set(right.values()) == {100.0}
