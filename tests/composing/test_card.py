"""The model card: what was removed, what a masked model is not, how to load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from huggingface_hub import ModelCard

from composer.composing.card import Making, card_data, model_card, read_card_data, with_measured
from composer.errors import InputError
from composer.models.folder import BaseModel
from composer.scheme.graph import Node

RATES = {"encoder.block.0.layer.0.SelfAttention": 0.25, "encoder.block.0.layer.0.SelfAttention.o": 0.5}
ROOT = Node("0" * 32, "model", "", RATES, ())


def test_a_masked_models_card_says_that_it_is_neither_smaller_nor_faster(t5_folder: Path) -> None:
    text = " ".join(model_card(Making(BaseModel(t5_folder), "composed from 10 blocks"), ROOT, 0.273).split())
    assert "t5, 27.3% of target weights removed" in text
    assert "Made with Composer: composed from 10 blocks." in text
    assert "still stored: the folder is as large and the model as slow as the dense one until it is shrunk" in text
    assert "| `encoder.block.0.layer.0.SelfAttention` | 0.25 |" in text
    assert "| `encoder.block.0.layer.0.SelfAttention.o` | 0.5 |" in text


def test_a_dense_models_card_does_not_call_it_masked(t5_folder: Path) -> None:
    text = model_card(Making(BaseModel(t5_folder), "dense, fine-tuned for 8 steps"), None, 0.0)
    assert "masked" not in text
    assert "Made with Composer: dense, fine-tuned for 8 steps." in text
    assert "0.0% of target weights removed" in text


@pytest.mark.parametrize(
    "name", ["t5", "t5-encoder", "distilbert", "distilbert-body", "bert", "bert-masked", "bert-body"]
)
def test_the_class_it_names_loads_the_model(name: str, model_folder: Callable[[str], Path]) -> None:
    base = BaseModel(model_folder(name))
    text = model_card(Making(base, "made"), ROOT, 0.2)
    auto = text.partition("model = transformers.")[2].partition(".from_pretrained")[0]
    made, info = getattr(transformers, auto).from_pretrained(base.folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert type(made).__name__ == base.config["architectures"][0]


def test_the_hub_reads_what_stands_at_the_top(bert_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("license: apache-2.0\nlanguage: [en]\n")
    making = Making(
        BaseModel(bert_folder), "made", "compose build-model -n 0", "a" * 64, read_card_data(tmp_path / "mine.yaml")
    )
    index = {
        "name": "x",
        "results": [
            {
                "task": {"type": "text-classification"},
                "dataset": {"name": "sst2", "type": "sst2"},
                "metrics": [{"type": "accuracy", "value": 0.9}],
            }
        ],
    }
    text = model_card(making, ROOT, 0.2, "3 of 4 heads kept")
    card = ModelCard(with_measured(text, ["| accuracy | 0.9 |"], index))
    assert card.data.license == "apache-2.0"
    assert (card.data.base_model, card.data.library_name) == (bert_folder.name, "transformers")
    assert card.data.tags == ["pruned", "masked", "composer"]
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.eval_results[0].metric_value == 0.9
    assert "![3 of 4 heads kept](kept.png)" in card.text
    assert "- command: `compose build-model -n 0`\n- scheme: `aaaaaaaaaaaaaaaa`" in card.text


def test_measuring_again_replaces_what_was_measured_and_nothing_else(bert_folder: Path) -> None:
    text = model_card(Making(BaseModel(bert_folder), "made"), ROOT, 0.2).replace("## Rates", "my words\n\n## Rates")
    once = with_measured(text, ["| loss | 2 |"])
    twice = with_measured(once, ["| loss | 1 |"])
    assert "| loss | 1 |" in twice
    assert "| loss | 2 |" not in twice
    assert "my words" in twice
    assert with_measured(twice, []) == text
    assert with_measured("a card of somebody else", ["x"]) == "a card of somebody else"


def test_card_data_is_fields_with_values(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- one\n")
    with pytest.raises(InputError, match=r"--card-data: .*a.yaml: allowed: fields with values"):
        read_card_data(tmp_path / "a.yaml")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\ntext")
    assert card_data(tmp_path / "README.md") == {"license": "mit"}
    assert card_data(tmp_path / "none.md") == {}
