"""Padding and ends of texts where config.json and the tokenizer disagree: batches give what single texts give."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from composer.errors import ModelError
from composer.tasks import DataOptions, open_task
from composer.tasks.special_tokens import end_ids, pad_id
from tests.conftest import VOCABULARY, make_folder


@pytest.mark.parametrize("padding", [None, 0, 7])
def test_a_batch_gives_what_each_text_gives_alone(tmp_path: Path, padding: int | None) -> None:
    """A decoder finds its last token by config.json's padding, which need not be the tokenizer's (0 here)."""
    from transformers import GPT2Config

    from composer.models.folder import BaseModel

    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
    config = GPT2Config(**sizes, pad_token_id=padding, num_labels=2)
    base = BaseModel(make_folder(tmp_path / "m", "GPT2ForSequenceClassification", config, "$A"))
    (tmp_path / "d").mkdir()
    texts = ["a man sees", "the old dog finds a small cat", "a", "very good film", "a dog"]
    (tmp_path / "d" / "test.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t0\n" for text in texts))
    task = open_task(DataOptions(data=str(tmp_path / "d")), base.folder, base.config)
    model, features = base.load(), task.load("test").features
    batch = task.loss(model, task.collate(features))[0]
    alone = [task.loss(model, task.collate([feature]))[0] for feature in features]
    torch.testing.assert_close(batch, torch.stack(alone).mean())


def test_the_models_own_padding_wins() -> None:
    tokenizer = SimpleNamespace(pad_token_id=3)
    assert pad_id(tokenizer, {"pad_token_id": 1, "vocab_size": 9}) == 1
    assert pad_id(tokenizer, {"vocab_size": 9}) == 3
    with pytest.raises(ModelError, match=r"no padding token and config\.json no pad_token_id"):
        pad_id(SimpleNamespace(pad_token_id=None), {})
    with pytest.raises(ModelError, match=r"pad_token_id: got 9; allowed: 0 to 8, as vocab_size is 9"):
        pad_id(tokenizer, {"pad_token_id": 9, "vocab_size": 9})


@pytest.mark.parametrize(
    ("stated", "own", "ends"), [(1, 1, [1]), (None, 2, [2]), ([1, 5], 2, [1, 5, 2]), (None, None, []), (4, None, [4])]
)
def test_either_end_ends_a_text(stated: Any, own: int | None, ends: list[int]) -> None:
    assert end_ids(SimpleNamespace(eos_token_id=own), stated) == ends
