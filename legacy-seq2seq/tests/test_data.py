"""Words, files and batches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legacy_seq2seq import data, pipe, vocabulary
from legacy_seq2seq.vocabulary import BOS, EOS, PAD, SPECIALS, UNK, Vocabularies, detokenise, tokenise

TEXT = st.text(st.sampled_from("abÄß \t'\".,()!?;:-<br/>1\u00a0\u2028"), max_size=30)


@given(st.lists(st.tuples(st.lists(st.just(4), max_size=20), st.lists(st.just(4), max_size=20)), max_size=300),
       st.integers(1, 9), st.one_of(st.none(), st.integers(0, 5)))  # fmt: skip
def test_batches_cover_each_example_once(examples: list[data.Example], size: int, seed: int | None) -> None:
    found = list(data.bucketed(examples, size, seed))
    assert sorted(i for rows in found for i in rows) == list(range(len(examples)))
    assert all(1 <= len(rows) <= size for rows in found)
    assert len(found) == -(-len(examples) // size)


def test_batches_hold_sentences_of_like_length() -> None:
    examples: list[data.Example] = [([4] * (1 + i * 7 % 40), [4] * (1 + i * 7 % 40)) for i in range(1000)]
    assert list(data.bucketed(examples, 10, 1)) == list(data.bucketed(examples, 10, 1))
    assert list(data.bucketed(examples, 10, 1)) != list(data.bucketed(examples, 10, 2))
    padded = sum(batch.source.numel() for batch in data.batches(examples, 10, 1))
    assert padded < 1.1 * sum(len(source) for source, _ in examples)


def test_batches_are_padded_on_the_right() -> None:
    (batch,) = data.batches([([2, 5, 3], [2, 3]), ([2, 3], [2, 6, 7, 3])], 2)
    assert batch.source.tolist() == [[2, 3, PAD], [2, 5, 3]]
    assert batch.target.tolist() == [[2, 6, 7, 3], [2, 3, PAD, PAD]]


@given(TEXT)
def test_tokens_are_torchtexts(text: str) -> None:
    torchtext = pytest.importorskip("torchtext")
    torchtext.disable_torchtext_deprecation_warning()
    from torchtext.data.utils import get_tokenizer

    assert tokenise(text) == get_tokenizer("basic_english")(text)


@given(st.lists(TEXT, max_size=12), st.integers(1, 3))
def test_vocabulary_is_torchtexts(sentences: list[str], min_frequency: int) -> None:
    pytest.importorskip("torchtext")
    assert pipe.has_torchtext()
    assert pipe.build(sentences, min_frequency) == vocabulary.build(map(tokenise, sentences), min_frequency)


def test_vocabulary_of_multi30k_is_torchtexts() -> None:
    pytest.importorskip("torchtext")
    folder = Path(__file__).parents[3] / "shared" / "data" / "multi30k"
    if not folder.is_dir():
        pytest.skip("no Multi30K beside the repository")
    pairs = data.read(folder, "train")
    assert len(pairs) == 29_000
    words = data.vocabularies(pairs)
    assert words.source == vocabulary.build([tokenise(source) for source, _ in pairs])
    assert words.target == vocabulary.build([tokenise(target) for _, target in pairs])


def test_lines_are_torchdatas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchdata")
    file = tmp_path / "a.de"
    file.write_bytes("eins\n\n zwei  drei \u2028 vier\r\nfünf".encode())
    ours = pipe.lines(file)
    monkeypatch.setattr(pipe, "has_torchtext", lambda: False)
    assert pipe.lines(file) == ours == ["eins", "", " zwei  drei \u2028 vier", "fünf"]


def test_frequent_words_come_first() -> None:
    sentences = [["b", "a"], ["a", "c"], ["b", "a", "d"]]
    assert vocabulary.build(sentences, 2) == [*SPECIALS, "a", "b"]
    assert vocabulary.build(sentences, 1) == [*SPECIALS, "a", "b", "c", "d"]


def test_text_to_ids_and_back() -> None:
    words = Vocabularies([*SPECIALS, "ein", "hund", "."], [*SPECIALS, "a", "dog", "."])
    assert words.encode_source("Ein Kater.") == [BOS, 4, UNK, 6, EOS]
    assert words.encode_source("Ein Hund.", max_length=4) == [BOS, 4, 5, EOS]
    ids = words.encode_target("A dog.")
    assert words.decode_target([*ids, 4, 4]) == "a dog."


@pytest.mark.parametrize("text", ["a man's dog (old, brown) runs!", "is it?", "one, two."])
def test_detokenised_text_reads_as_before(text: str) -> None:
    assert detokenise(tokenise(text)) == text


def test_files_that_do_not_match_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be one of train, validation, test, got 'dev'"):
        data.read(tmp_path, "dev")
    with pytest.raises(FileNotFoundError, match=r"val\.de: no such file"):
        data.read(tmp_path, "validation")
    (tmp_path / "val.de").write_text("eins\nzwei\n")
    (tmp_path / "val.en").write_text("one\n")
    with pytest.raises(ValueError, match=r"val\.de has 2 lines, .*val\.en has 1"):
        data.read(tmp_path, "validation")
