"""The model card: what was removed, what a masked model is not, how to load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
import yaml

from composer.composing.card import model_card
from composer.models.folder import BaseModel
from composer.scheme.graph import Node

RATES = {"encoder.block.0.layer.0.SelfAttention": 0.25, "encoder.block.0.layer.0.SelfAttention.o": 0.5}
ROOT = Node("0" * 32, "model", "", RATES, ())


def test_a_masked_models_card_says_that_it_is_neither_smaller_nor_faster(t5_folder: Path) -> None:
    text = " ".join(model_card(BaseModel(t5_folder), ROOT, 0.273, "composed from 10 blocks").split())
    assert "t5, 27.3% of target weights removed" in text
    assert "Made with Composer: composed from 10 blocks." in text
    assert "still stored: the folder is as large and the model as slow as the dense one until it is shrunk" in text
    assert "| `encoder.block.0.layer.0.SelfAttention` | 0.25 |" in text
    assert "| `encoder.block.0.layer.0.SelfAttention.o` | 0.5 |" in text


def test_a_dense_models_card_does_not_call_it_masked(t5_folder: Path) -> None:
    text = model_card(BaseModel(t5_folder), None, 0.0, "dense, fine-tuned for 8 steps")
    assert "masked" not in text
    assert "Made with Composer: dense, fine-tuned for 8 steps." in text
    assert "0.0% of target weights removed" in text


@pytest.mark.parametrize(
    "name", ["t5", "t5-encoder", "distilbert", "distilbert-body", "bert", "bert-masked", "bert-body"]
)
def test_the_class_it_names_loads_the_model(name: str, model_folder: Callable[[str], Path]) -> None:
    base = BaseModel(model_folder(name))
    text = model_card(base, ROOT, 0.2, "made")
    auto = text.partition("`transformers.")[2].partition(".from_pretrained")[0]
    made, info = getattr(transformers, auto).from_pretrained(base.folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert type(made).__name__ == base.config["architectures"][0]


def test_the_front_matter_is_yaml(bert_folder: Path) -> None:
    _, front, _ = model_card(BaseModel(bert_folder), ROOT, 0.2, "made").split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "tags": ["pruned", "composer"],
        "base_model": bert_folder.name,
    }
