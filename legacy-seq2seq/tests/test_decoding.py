"""Greedy and beam search against each other and against trying everything."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from legacy_seq2seq.decoding import beam, greedy, translate
from legacy_seq2seq.model import Seq2Seq
from legacy_seq2seq.vocabulary import BOS, EOS, PAD, SPECIALS, UNK, Vocabularies

from .conftest import tiny

SOURCES = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 3, PAD], [2, 4, 3, PAD, PAD], [2, 10, 11, 5, 3]])


@torch.no_grad()
def log_probability(model: Seq2Seq, source: Tensor, words: list[int]) -> float:
    """Of a whole answer, in one pass."""
    scores = model(source[None], torch.tensor([[BOS, *words[:-1]]])).log_softmax(-1)
    return sum(float(scores[0, place, word]) for place, word in enumerate(words))


def best_of_all(model: Seq2Seq, source: Tensor, penalty: float, longest: int) -> list[int]:
    """Every answer of up to ``longest`` words (``eos`` is one), those without ``eos`` at full length only."""
    others = [word for word in range(model.config.target_vocabulary) if word not in (UNK, PAD, BOS, EOS)]
    answers = [[*body, EOS] for n in range(longest) for body in itertools.product(others, repeat=n)]
    answers += [list(body) for body in itertools.product(others, repeat=longest)]
    best = max(answers, key=lambda words: log_probability(model, source, words) / len(words) ** penalty)
    return best[:-1] if best[-1] == EOS else best


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_wide_beam_finds_the_best_of_all(seed: int, penalty: float) -> None:
    model = tiny(seed, target_vocabulary=7)
    found = beam(model, SOURCES[:2], beams=60, length_penalty=penalty, longest=3)
    assert found == [best_of_all(model, source[source != PAD], penalty, 3) for source in SOURCES[:2]]


@settings(max_examples=15)
@given(seed=st.integers(0, 30), longest=st.integers(1, 8), penalty=st.sampled_from([0.0, 1.0]))
def test_one_beam_is_greedy(seed: int, longest: int, penalty: float) -> None:
    model = tiny(seed)
    assert beam(model, SOURCES, 1, penalty, longest) == greedy(model, SOURCES, longest)


@settings(max_examples=15)
@given(seed=st.integers(0, 30))
def test_greedy_takes_the_likeliest_word_each_time(seed: int) -> None:
    model = tiny(seed)
    for source, answer in zip(SOURCES, greedy(model, SOURCES, 6), strict=True):
        written = [BOS]
        for word in [*answer, EOS][:6]:
            scores = model(source[source != PAD][None], torch.tensor([written]))[0, -1]
            scores[[PAD, BOS, UNK]] = float("-inf")
            assert int(scores.argmax()) == word
            written.append(word)


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_a_sentence_does_not_depend_on_its_batch(beams: int) -> None:
    model = tiny(3)
    together = beam(model, SOURCES, beams)
    assert together == [beam(model, source[source != PAD][None], beams)[0] for source in SOURCES]


def test_translations_come_in_the_order_of_the_texts() -> None:
    model = tiny(4)
    words = Vocabularies([*SPECIALS, *"abcdefgh"], [*SPECIALS, *"uvwxyz"])
    texts = ["a b c d", "e", "f g", "h a b", ""]
    for beams in (1, 3):
        alone = [translate(model, words, [text], beams)[0] for text in texts]
        assert translate(model, words, texts, beams, batch_size=2) == alone


def test_no_texts() -> None:
    assert translate(tiny(), Vocabularies(list(SPECIALS), list(SPECIALS)), []) == []


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_end_where_the_positions_do(beams: int) -> None:
    model = tiny(max_length=6)
    with torch.no_grad():
        model.generator.bias[EOS] = -50.0  # it never stops by itself
    answers = beam(model, SOURCES, beams) if beams > 1 else greedy(model, SOURCES)
    assert [len(answer) for answer in answers] == [6] * len(SOURCES)
