"""Tiny models made from config and a tiny tokenizer, shared by the session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Write = Callable[[dict[str, str]], Path]

ENGLISH = ["a", "man", "woman", "dog", "cat", "runs", "sleeps", "sees", "the", "in", "snow", "good", "bad"]
GERMAN = ["ein", "eine", "mann", "frau", "hund", "katze", "läuft", "schläft"]
WORDS = ENGLISH + GERMAN
SPECIALS = ["<pad>", "</s>", "<unk>", "[CLS]", "[SEP]"]


def make_tokenizer(template: str, inputs: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate([*SPECIALS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(name, ids[name]) for name in SPECIALS if name in template]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
        model_input_names=inputs,
    )


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files (name -> text) into a data folder and return it."""

    def write_files(files: dict[str, str]) -> Path:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_bytes(text.encode())
        return folder

    return write_files


@pytest.fixture(scope="session")
def t5_tokenizer() -> Any:
    return make_tokenizer("$A </s>", ["input_ids", "attention_mask"])


@pytest.fixture(scope="session")
def bert_tokenizer() -> Any:
    return make_tokenizer("[CLS] $A [SEP]", ["input_ids", "attention_mask"])


@pytest.fixture(scope="session")
def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    size = len(SPECIALS) + len(WORDS)
    config = T5Config(
        vocab_size=size,
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5ForConditionalGeneration(config).eval()


@pytest.fixture(scope="session")
def distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    names = ["negative", "positive"]
    config = DistilBertConfig(
        vocab_size=len(SPECIALS) + len(WORDS),
        dim=16,
        hidden_dim=32,
        n_layers=2,
        n_heads=2,
        max_position_embeddings=128,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        pad_token_id=0,
    )
    return DistilBertForSequenceClassification(config).eval()
