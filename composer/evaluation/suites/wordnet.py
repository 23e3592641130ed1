"""Synonyms from WordNet's files (Fellbaum 1998), for METEOR: words, their forms, and sets of words that mean the same.

Only ``data.noun``, ``data.verb``, ``data.adj`` and ``data.adv`` are needed, in the format of wndb(5WN); ``noun.exc``
and the like tell irregular forms where they are there. nltk's own reader takes WordNet only from folders of nltk's, and
by places in the file, so that files with other line ends are misread; here lines are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...files.jsonfile import read_text

MARK = re.compile(r"\((?:a|p|ip)\)$")
"""Where an adjective stands, behind its word."""
ENDINGS = {
    "noun": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "verb": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "adj": "er: est: er:e est:e",
    "adv": "",
}
"""Endings of forms and what a word has instead, as WordNet's program morphy has them (morphy(7WN))."""
RULES = {pos: [tuple(rule.split(":")) for rule in rules.split()] for pos, rules in ENDINGS.items()}


@dataclass(frozen=True)
class Lemma:
    """A word of a synset, with the surface that nltk's METEOR asks."""

    word: str

    def name(self) -> str:
        """The word; blanks are underscores."""
        return self.word


@dataclass(frozen=True)
class Synset:
    """Words that mean the same."""

    words: tuple[str, ...]

    def lemmas(self) -> list[Lemma]:
        """Its words."""
        return [Lemma(word) for word in self.words]


class WordNet:
    """All of it, in memory (a second or two)."""

    def __init__(self, folder: Path) -> None:
        """Read the files.

        Raises:
            DataError: one is missing, or has a line that is none of WordNet's.
        """
        if missing := [f"data.{pos}" for pos in ENDINGS if not (folder / f"data.{pos}").is_file()]:
            needed = ", ".join(f"data.{pos}" for pos in ENDINGS)
            raise DataError(f"--wordnet: {folder}: {missing[0]} is missing; needed: {needed} of WordNet")
        self._synsets: dict[str, dict[str, list[Synset]]] = {}
        self._irregular: dict[str, dict[str, list[str]]] = {}
        for pos in ENDINGS:
            own = self._synsets[pos] = {}
            for synset in _synsets(folder / f"data.{pos}"):
                for word in synset.words:
                    own.setdefault(word.lower(), []).append(synset)
            listed = folder / f"{pos}.exc"
            lines = read_text(listed, DataError).split("\n") if listed.is_file() else []
            self._irregular[pos] = {form[0]: form[1:] for form in map(str.split, lines) if form}

    def synsets(self, word: str) -> list[Synset]:
        """Those of a word or of one of its forms, as any part of speech."""
        return [s for pos, own in self._synsets.items() for form in self._words(word.lower(), pos) for s in own[form]]

    def _words(self, form: str, pos: str) -> list[str]:
        """What WordNet has of a form: itself, or what irregular forms or the endings make of it."""
        others = self._irregular[pos].get(form)
        if others is None:
            others = [f"{form.removesuffix(old)}{new}" for old, new in RULES[pos] if form.endswith(old)]
        return [one for one in dict.fromkeys([form, *others]) if one in self._synsets[pos]]


def _synsets(path: Path) -> Iterator[Synset]:
    """Of each line: place, number of a file, kind, how many words (hexadecimal), then words with a number each."""
    for number, line in enumerate(read_text(path, DataError).split("\n"), 1):
        if not line.strip() or line.startswith("  "):  # the licence
            continue
        fields = line.split(" ")
        try:
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            if not words or not fields[0].isdigit():
                raise ValueError
        except (ValueError, IndexError):
            raise DataError(f"--wordnet: {path}:{number}: is no line of WordNet's") from None
        yield Synset(tuple(MARK.sub("", word) for word in words))
