"""A tiny model with random weights, and a tiny language."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, settings

from legacy_seq2seq.config import Config
from legacy_seq2seq.data import Pair
from legacy_seq2seq.model import Seq2Seq

settings.register_profile(
    "legacy", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("legacy")

WORDS = {"mann": "man", "hund": "dog", "kind": "child", "sieht": "sees", "mag": "likes", "rot": "red"}


def tiny(seed: int = 0, **sizes: object) -> Seq2Seq:
    """An untrained model; wide weights, so that its answers differ from sentence to sentence."""
    torch.manual_seed(seed)
    config = {"d_model": 16, "heads": 4, "encoder_layers": 2, "decoder_layers": 2, "d_ff": 24, **sizes}
    model = Seq2Seq(Config(**{"source_vocabulary": 12, "target_vocabulary": 10, **config}))  # type: ignore[arg-type]
    with torch.no_grad():
        model.generator.weight.mul_(3)
    return model.eval()


@pytest.fixture
def model() -> Seq2Seq:
    return tiny()


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """Word-by-word translations of one to six words, ended by a full stop."""
    chance = random.Random(0)
    found = []
    for _ in range(120):
        words = chance.choices(list(WORDS), k=chance.randint(1, 6))
        found.append((" ".join(words).capitalize() + ".", " ".join(WORDS[word] for word in words).capitalize() + "."))
    return found
