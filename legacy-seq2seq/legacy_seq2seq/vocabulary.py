"""Words and their ids, source and target, as ``vocabulary.json``; needs neither torch nor torchtext."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

VOCABULARY_FILE = "vocabulary.json"
SPECIALS = ("<unk>", "<pad>", "<bos>", "<eos>")
UNK, PAD, BOS, EOS = range(4)

# torchtext 0.18, data/utils.py, `basic_english`: the same replacements in the same order.
_REPLACEMENTS = [
    (re.compile(pattern), with_)
    for pattern, with_ in (
        (r"\'", " '  "),
        (r"\"", ""),
        (r"\.", " . "),
        (r"<br \/>", " "),
        (r",", " , "),
        (r"\(", " ( "),
        (r"\)", " ) "),
        (r"\!", " ! "),
        (r"\?", " ? "),
        (r"\;", " "),
        (r"\:", " "),
        (r"\s+", " "),
    )
]


def tokenise(text: str) -> list[str]:
    """Lower-cased words and punctuation marks, equal to torchtext's ``basic_english``.

    >>> tokenise("Ein Mann, der lacht.")
    ['ein', 'mann', ',', 'der', 'lacht', '.']
    """
    text = text.lower()
    for pattern, with_ in _REPLACEMENTS:
        text = pattern.sub(with_, text)
    return text.split()


def detokenise(tokens: Sequence[str]) -> str:
    """One readable line: no blank before a mark of punctuation or around an apostrophe.

    >>> detokenise(["the", "man", "'", "s", "dog", "(", "brown", ")", "runs", "."])
    "the man's dog (brown) runs."
    """
    text = " ".join(tokens)
    text = re.sub(r" ([.,!?)])", r"\1", text)
    text = re.sub(r"\( ", "(", text)
    return re.sub(r"(?<=\w) ' (?=\w)", "'", text)


def build(sentences: Iterable[Sequence[str]], min_frequency: int = 2) -> list[str]:
    """The specials, then words by falling count and in alphabetical order among equals; rarer words are left out.

    The order of torchtext's ``build_vocab_from_iterator(..., min_freq=min_frequency, specials=SPECIALS)``.
    """
    counts = Counter(token for sentence in sentences for token in sentence)
    for special in SPECIALS:
        counts.pop(special, None)
    words = [word for word, count in counts.items() if count >= min_frequency]
    return [*SPECIALS, *sorted(words, key=lambda word: (-counts[word], word))]


@dataclass(frozen=True)
class Vocabularies:
    """The words of both languages; a word's id is its place."""

    source: list[str]
    target: list[str]

    @cached_property
    def _source_ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.source)}

    @cached_property
    def _target_ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.target)}

    def encode_source(self, text: str, max_length: int | None = None) -> list[int]:
        """``bos``, the words, ``eos``; longer sentences lose their last words."""
        return _encode(text, self._source_ids, max_length)

    def encode_target(self, text: str, max_length: int | None = None) -> list[int]:
        """As ``encode_source``, in the target's words."""
        return _encode(text, self._target_ids, max_length)

    def decode_target(self, ids: Iterable[int]) -> str:
        """The text up to the first ``eos``, without the other specials (an unknown word stays visible)."""
        tokens: list[str] = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                tokens.append(self.target[i])
        return detokenise(tokens)

    def save(self, folder: Path) -> None:
        """Write ``vocabulary.json``."""
        text = json.dumps({"source": self.source, "target": self.target}, ensure_ascii=False, indent=0)
        (folder / VOCABULARY_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str) -> Vocabularies:
        """Read ``vocabulary.json``."""
        values = json.loads((Path(folder) / VOCABULARY_FILE).read_text(encoding="utf-8"))
        return cls(list(values["source"]), list(values["target"]))


def _encode(text: str, ids: dict[str, int], max_length: int | None) -> list[int]:
    words = [ids.get(token, UNK) for token in tokenise(text)]
    if max_length is not None:
        words = words[: max_length - 2]
    return [BOS, *words, EOS]
