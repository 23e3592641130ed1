from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.errors import DataError
from composer.evaluation.measure import measure
from composer.scheme.layout import Layout
from composer.tasks import DataOptions
from composer.tasks.language_model import LanguageModelTask

from .conftest import VOCABULARY, WORDS, Write, make_tokenizer


def words(count: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def make(folder: Path, tokenizer: Any, config: Any, **options: Any) -> LanguageModelTask:
    fields = {"data": str(folder), "max_source_length": 8, **options}
    return LanguageModelTask(DataOptions.model_validate(fields), tokenizer, config)


class Letters:
    """A tokenizer whose tokens are the characters, so that a window shows its text."""

    pad_token_id = None
    model_max_length = 10**30

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def text_of(folder: Path, **options: Any) -> str:
    data = make(folder, Letters(), {}, **options, max_source_length=1000).load("test")
    assert len(data) == 1
    return "".join(map(chr, data.features[0]["input_ids"]))  # type: ignore[arg-type]


def test_lines_are_joined_as_the_published_perplexities_join_them(write: Write) -> None:
    lines = [" \n", " = Robert Boulter = \n", " \n", " Robert Boulter is an actor . \n"]
    # The hub's WikiText has blank rows empty and keeps the line ends of the others.
    rows = ["", " = Robert Boulter = \n", "", " Robert Boulter is an actor . \n"]
    assert text_of(write({"wiki.test.raw": "".join(lines)})) == "\n\n".join(rows)


def test_documents_are_joined_by_an_empty_line(write: Write) -> None:
    folder = write({"test.jsonl": '{"text": "a\\nb"}\n{"text": ""}\n{"text": null}\n{"text": "c"}\n'})
    assert text_of(folder) == "a\nb\n\n\n\n\n\nc"


def test_windows_do_not_overlap_and_the_rest_is_dropped(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    text = words(35)
    task = make(write({"test.txt": text}), gpt2_tokenizer, gpt2.config.to_dict())
    data = task.load("test")
    ids = gpt2_tokenizer(text)["input_ids"]
    assert [feature["input_ids"] for feature in data.features] == [ids[i : i + 8] for i in (0, 8, 16, 24)]
    assert data.source == "test.txt; 4 windows of 8 tokens"
    two = make(write({}), gpt2_tokenizer, gpt2.config.to_dict(), test_size=2).load("test")
    assert list(two.features) == list(data.features[:2])
    assert two.source.endswith("4 windows of 8 tokens; first 2 of 4 windows")


def test_a_text_shorter_than_a_window_is_one(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    data = make(write({"test.txt": "a man runs"}), gpt2_tokenizer, gpt2.config.to_dict()).load("test")
    assert [len(feature["input_ids"]) for feature in data.features] == [3]  # type: ignore[arg-type]


def test_the_start_token_comes_once(write: Write, gpt2: Any) -> None:
    tokenizer = make_tokenizer("</s> $A")
    data = make(write({"test.txt": "a\nman\nruns\n" * 5}), tokenizer, gpt2.config.to_dict()).load("test")
    assert [feature["input_ids"].count(1) for feature in data.features] == [1, 0]  # type: ignore[union-attr]


def test_the_window_is_the_models_limit_but_at_most_1024(write: Write) -> None:
    tokenizer = make_tokenizer("$A")
    tokenizer.model_max_length = 10**30
    for config, window in [
        ({"n_positions": 32}, 32),
        ({"max_position_embeddings": 4096}, 1024),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({}, 1024),
    ]:
        assert make(write({}), tokenizer, config, max_source_length=None).window == window
    with pytest.raises(DataError, match="max_source_length: got 33, the model reads at most 32 tokens"):
        make(write({}), tokenizer, {"n_positions": 32}, max_source_length=33)
    with pytest.raises(DataError, match="max_source_length: got 1, a window needs at least 2 tokens"):
        make(write({}), tokenizer, {}, max_source_length=1)


@torch.no_grad()
def brute_force(model: Any, windows: list[list[int]]) -> float:
    """Mean surprise of every token given those before it, each from a pass of its own, in float64."""
    surprises = [
        -float(model(torch.tensor([window[:i]])).logits[0, -1].double().log_softmax(-1)[window[i]])
        for window in windows
        for i in range(1, len(window))
    ]
    return sum(surprises) / len(surprises)


def test_perplexity_equals_brute_force(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    text = words(30)
    task = make(write({"test.txt": text}), gpt2_tokenizer, gpt2.config.to_dict())
    data = task.load("test")
    ids = gpt2_tokenizer(text)["input_ids"]
    expected = brute_force(gpt2, [ids[i : i + 8] for i in (0, 8, 16)])
    for batch_size in (1, 2, 64):
        score = task.score(gpt2, data, batch_size=batch_size)
        assert score.loss == pytest.approx(expected, rel=1e-5)
        assert score.metrics == {"perplexity": pytest.approx(math.exp(expected), rel=1e-5)}
        assert score.details["tokens"] == 21
        assert score.details["seconds"] > 0
    assert task.chance() == pytest.approx(math.log(VOCABULARY))


def test_loss_is_the_models_own_and_padding_does_not_count(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    task = make(write({"test.txt": words(8)}), gpt2_tokenizer, gpt2.config.to_dict())
    (feature,) = task.load("test").features
    ids = torch.tensor([feature["input_ids"]])
    loss, count = task.loss(gpt2, task.collate([feature]))
    assert count == 7
    assert loss.requires_grad
    assert loss.item() == pytest.approx(gpt2(input_ids=ids, labels=ids).loss.item(), rel=1e-6)
    short = {"input_ids": [7, 8, 9]}
    batch = task.collate([feature, short])
    assert {name: mask.sum(1).tolist() for name, mask in task.real_tokens(batch).items()} == {"decoder": [8, 3]}
    both, count = task.loss(gpt2, batch)
    alone, few = task.loss(gpt2, task.collate([short]))
    assert (count, few) == (9, 2)
    assert both.item() * 9 == pytest.approx(loss.item() * 7 + alone.item() * 2, rel=1e-5)


def test_a_hopeless_model_still_has_a_perplexity(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    task = make(write({"test.txt": words(8)}), gpt2_tokenizer, gpt2.config.to_dict())

    class Hopeless(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            logits = torch.zeros(*input_ids.shape, VOCABULARY)
            logits[..., 0] = 1e6
            return type("Out", (), {"logits": logits})

    score = task.score(Hopeless(), task.load("test"))
    assert score.loss == pytest.approx(1e6)
    assert math.isfinite(score.metrics["perplexity"])


def test_training_windows_are_a_sample_and_evaluation_takes_the_first(
    write: Write, gpt2_tokenizer: Any, gpt2: Any
) -> None:
    folder = write({"train.txt": words(400), "valid.txt": words(80, 1), "test.txt": words(80, 2)})
    config = gpt2.config.to_dict()
    whole = make(folder, gpt2_tokenizer, config).load("train")
    some = make(folder, gpt2_tokenizer, config, train_size=5, seed=3).load("train")
    assert len(whole) == 50
    assert [f for f in whole.features if f in some.features] == list(some.features)
    assert some.source == "train.txt; 50 windows of 8 tokens; 5 of 50 windows with seed 3"
    assert len(make(folder, gpt2_tokenizer, config, valid_size=3).load("valid")) == 3


def test_lines_are_held_out_where_there_is_no_validation(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    lines = [words(12, seed) for seed in range(40)]
    folder = write({"corpus.txt": "\n\n".join(lines)})
    task = make(folder, gpt2_tokenizer, gpt2.config.to_dict())
    train, valid = task.load("train"), task.load("valid")
    assert "2 rows held out for validation with seed 0" in valid.source
    assert (len(train), len(valid)) == (38 * 12 // 8, 3)
    assert task.load("test").source.endswith("no test split, validation is used; 3 windows of 8 tokens")


def test_wikitext_names_files_and_columns(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    config = gpt2.config.to_dict()
    folder = write({f"wiki.{split}.raw": words(20) for split in ("train", "valid", "test")})
    assert [make(folder, gpt2_tokenizer, config).load(split).source.split(";")[0] for split in ("train", "valid")] == [
        "wiki.train.raw",
        "wiki.valid.raw",
    ]
    write({"test.txt": words(20)})
    assert make(folder, gpt2_tokenizer, config).load("test").source.startswith("test.txt")
    asked = make(folder, gpt2_tokenizer, config, test_split="wiki.test").load("test")
    assert asked.source.startswith("wiki.test.raw")
    write({"dev.tsv": f"en\tde\n{words(20)}\tx\n"})
    english = make(folder, gpt2_tokenizer, config, valid_split="dev").load("valid")
    assert english.source.startswith("dev.tsv")


def test_what_is_no_text(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    config = gpt2.config.to_dict()
    with pytest.raises(DataError, match=r"no text column 'text' or .*; columns: a"):
        make(write({"test.jsonl": '{"a": "x"}'}), gpt2_tokenizer, config).load("test")
    with pytest.raises(DataError, match=r"test\.jsonl:1: 'a' is int 3, expected is text"):
        make(write({"test.jsonl": '{"a": 3}'}), gpt2_tokenizer, config, text_column="a").load("test")
    with pytest.raises(DataError, match=r"the text has 1 tokens, at least 2 are needed"):
        make(write({"test.jsonl": '{"text": "man"}'}), gpt2_tokenizer, config).load("test")


def test_predict_goes_on_greedily(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    task = make(write({}), gpt2_tokenizer, gpt2.config.to_dict(), max_target_length=4)
    expected = []
    for text in ("a man", "the dog sees"):
        ids = gpt2_tokenizer(text)["input_ids"]
        start = len(ids)
        while len(ids) < start + 4 and ids[-1] != 1:
            with torch.no_grad():
                ids = [*ids, int(gpt2(torch.tensor([ids])).logits[0, -1].argmax())]
        expected.append(gpt2_tokenizer.decode(ids[start:], skip_special_tokens=True))
    assert task.predict(gpt2, ["a man", "the dog sees"]) == expected
    # More than the position table holds: the end of the text is what the model goes on from.
    assert task.predict(gpt2, ["bad " * 40 + "the dog sees"])
    assert task.predict(gpt2, []) == []
    with pytest.raises(DataError, match="text '': no token to go on from"):
        task.predict(gpt2, [""])


def test_evaluation_says_loss_perplexity_tokens_and_time(write: Write, gpt2_tokenizer: Any, gpt2: Any) -> None:
    task = make(write({"test.txt": words(30)}), gpt2_tokenizer, gpt2.config.to_dict())
    result = measure(gpt2, Layout("none", (), ()), task, task.load("test"))
    assert result["metrics"]["perplexity"] == pytest.approx(math.exp(result["loss"]))
    assert (result["examples"], result["details"]["tokens"], result["details"]["window"]) == (3, 21, 8)
    assert result["seconds_per_example"] == pytest.approx(result["details"]["seconds"] / 3)
