"""The embedded corpus and checkpoint: fixed, correct, disjoint, and learnt."""

from __future__ import annotations

import hashlib
import importlib.resources
from pathlib import Path

import pytest

from composer.demo.corpus import SIZES, Clause, Sentence, Split, Thing, pairs, translate
from composer.demo.lexicon import ADJECTIVES, NOUNS, SUITS, VERBS

CHECKPOINT = Path(str(importlib.resources.files("composer.demo"))) / "checkpoint"
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
ALL = [pair for split in SPLITS for pair in pairs(split)]

MAN = Thing("man", "the", "old")
WOMAN = Thing("woman", "the")
CHILD = Thing("child", "a", "small")
DOG = Thing("dog", "a", "small")
ICH, HE, SHE, THEY = Thing("I"), Thing("he"), Thing("she"), Thing("they")
BOYS = Thing("boy", "two", "friendly", plural=True)

KNOWN = [
    (
        Sentence(Clause(MAN, "see", object=DOG, time="today", front="time")),
        "Today the old man sees a small dog.",
        "Heute sieht der alte Mann einen kleinen Hund.",
    ),
    (
        Sentence(Clause(THEY, "call", object=HE, time="every day")),
        "They call him every day.",
        "Sie rufen ihn jeden Tag an.",
    ),
    (
        Sentence(Clause(WOMAN, "give", recipient=CHILD, object=Thing("apple", "a", "red"))),
        "The woman gives a small child a red apple.",
        "Die Frau gibt einem kleinen Kind einen roten Apfel.",
    ),
    (
        Sentence(Clause(Thing("you"), "help", modal="must", object=BOYS)),
        "You must help two friendly boys.",
        "Du musst zwei freundlichen Jungen helfen.",
    ),
    (
        Sentence(Clause(ICH, "follow", "past", object=Thing("neighbour", "our"), time="yesterday")),
        "I followed our neighbour yesterday.",
        "Ich bin gestern unserem Nachbarn gefolgt.",
    ),
    (
        Sentence(Clause(HE, "buy", "past", object=Thing("book", "a"), negated=True)),
        "He did not buy a book.",
        "Er hat kein Buch gekauft.",
    ),
    (
        Sentence(Clause(SHE, "see", object=MAN, negated=True)),
        "She does not see the old man.",
        "Sie sieht den alten Mann nicht.",
    ),
    (
        Sentence(Clause(Thing("bird", "many", plural=True), "sleep", place=("in", Thing("garden", "the")))),
        "Many birds sleep in the garden.",
        "Viele Vögel schlafen im Garten.",
    ),
    (
        Sentence(Clause(ICH, "know"), "that", Clause(MAN, "get up", "future", time="soon")),
        "I know that the old man will get up soon.",
        "Ich weiß, dass der alte Mann bald aufstehen wird.",
    ),
    (
        Sentence(Clause(WOMAN, "sing"), "because", Clause(Thing("girl", "this"), "look at", object=SHE)),
        "The woman sings because this girl looks at her.",
        "Die Frau singt, weil sie dieses Mädchen ansieht.",
    ),
    (
        Sentence(Clause(CHILD, "dance"), "when", Clause(MAN, "play")),
        "When the old man plays, a small child dances.",
        "Wenn der alte Mann spielt, tanzt ein kleines Kind.",
    ),
    (
        Sentence(
            Clause(
                Thing("queen", "my", bearing=Thing("bag", "the", "black")),
                "invite",
                modal="want to",
                object=HE,
                place=("in front of", Thing("house", "this", "big")),
                front="place",
            )
        ),
        "In front of this big house my queen with the black bag wants to invite him.",
        "Vor diesem großen Haus will ihn meine Königin mit der schwarzen Tasche einladen.",
    ),
    (
        Sentence(Clause(BOYS, "listen to", modal="can", object=WOMAN, negated=True)),
        "Two friendly boys cannot listen to the woman.",
        "Zwei freundliche Jungen können der Frau nicht zuhören.",
    ),
]


@pytest.mark.parametrize(("sentence", "english", "german"), KNOWN, ids=[english for _, english, _ in KNOWN])
def test_known_translations(sentence: Sentence, english: str, german: str) -> None:
    assert translate(sentence) == (english, german)


@pytest.mark.parametrize("split", SPLITS)
def test_sizes(split: Split) -> None:
    assert len(pairs(split)) == SIZES[split]


def test_no_sentence_stands_twice_in_or_across_splits() -> None:
    sources, targets = zip(*ALL, strict=True)
    assert len(set(sources)) == len(set(targets)) == len(ALL)


def test_always_the_same() -> None:
    """A new corpus is a new checkpoint: train it again and put the new digest here."""
    text = "\n".join(f"{source}\t{target}" for source, target in ALL)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "02d58c48f0b611bc72cefb094b76d74bf73dbde6a9b1ad8fadf3481f09af1931"
    )


def test_a_caller_cannot_change_the_corpus() -> None:
    pairs("test").clear()
    assert len(pairs("test")) == SIZES["test"]


def test_shape_of_the_sentences() -> None:
    for source, target in ALL:
        assert 4 <= len(source.split()) <= 12
        for text in (source, target):
            assert text[0].isupper()
            assert text.endswith(".")
            assert "  " not in text
            assert " ." not in text


def test_every_test_word_is_seen_in_training() -> None:
    for side in (0, 1):
        known = {word for pair in pairs("train") for word in pair[side].lower().strip(".").split()}
        unseen = {w for pair in pairs("test") for w in pair[side].lower().strip(".").split()} - known
        assert len(unseen) <= 5


def test_lexicon_is_whole() -> None:
    assert {word for words in SUITS.values() for word in words} == set(ADJECTIVES)
    assert {noun.kind for noun in NOUNS.values()} == set(SUITS)
    assert all(noun.gender in "mfn" for noun in NOUNS.values())
    assert all(verb.auxiliary in ("haben", "sein") for verb in VERBS.values())


def test_checkpoint_is_small() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 4 * 2**20


def test_checkpoint_translates() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(CHECKPOINT)
    prefix = model.config.task_specific_params["translation_en_to_de"]["prefix"]
    sources, targets = zip(*pairs("test")[:20], strict=True)
    batch = tokenizer([prefix + source for source in sources], padding=True, return_tensors="pt")
    said = tokenizer.batch_decode(model.generate(**batch, max_new_tokens=64), skip_special_tokens=True)
    assert sum(a == b for a, b in zip(said, targets, strict=True)) >= 14


def test_tokenizer_gives_every_sentence_back() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    texts = [text for pair in pairs("test") for text in pair]
    ids = tokenizer(texts).input_ids
    assert all(row[-1] == tokenizer.eos_token_id for row in ids)
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == texts
