"""Tiny models made from config and a tiny tokenizer, shared by the session."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import conftest

Write = Callable[[dict[str, str]], Path]

ENGLISH = ["a", "man", "woman", "dog", "cat", "runs", "sleeps", "sees", "the", "in", "snow", "good", "bad"]
GERMAN = ["ein", "eine", "mann", "frau", "hund", "katze", "läuft", "schläft"]
WORDS = ENGLISH + GERMAN
VOCABULARY = len(conftest.SPECIALS) + len(WORDS)
PAIR = "[CLS] $A [SEP] $B:1 [SEP]:1"

make_tokenizer = partial(conftest.make_tokenizer, words=WORDS)


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
    return make_tokenizer("$A </s>")


@pytest.fixture(scope="session")
def bert_tokenizer() -> Any:
    return make_tokenizer("[CLS] $A [SEP]", pair=PAIR)


@pytest.fixture(scope="session")
def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
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
        vocab_size=VOCABULARY,
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


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> Any:
    return make_tokenizer("$A")


@pytest.fixture(scope="session")
def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "initializer_range": 0.5}
    config = GPT2Config(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=1, **sizes)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def masked_bert() -> Any:
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    return BertForMaskedLM(bert_config()).eval()


@pytest.fixture(scope="session")
def answering_bert() -> Any:
    from transformers import BertForQuestionAnswering

    torch.manual_seed(0)
    return BertForQuestionAnswering(bert_config()).eval()


def bert_config() -> Any:
    from transformers import BertConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertConfig(vocab_size=VOCABULARY, max_position_embeddings=64, pad_token_id=0, initializer_range=0.5, **sizes)
