"""METEOR (Banerjee and Lavie 2005) by nltk: exact words and stems, and synonyms where WordNet is given.

nltk's parameters are those of 2007; its figures do not compare with those of the program Meteor 1.5.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from .wordnet import WordNet


class _NoSynonyms:
    """Stands for WordNet: no word has another."""

    def synsets(self, word: str) -> list[Any]:
        return []


@lru_cache(maxsize=2)
def synonyms(folder: Path | None) -> Any:
    """What METEOR asks for synsets.

    Raises:
        DataError: a folder that does not hold WordNet's files.
    """
    return _NoSynonyms() if folder is None else WordNet(folder)


def meteor(text: str, reference: str, wordnet: Path | None = None) -> float:
    """Of one sentence, 0 to 1; words are parted at blanks, case does not count."""
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(reference.split(), text.split(), wordnet=synonyms(wordnet)))


def signature(wordnet: Path | None) -> str:
    """How it is computed, for records."""
    import nltk

    modules = "exact+stem+synonym" if wordnet else "exact+stem"
    return f"{modules}|alpha:0.9|beta:3.0|gamma:0.5|split:blanks|nltk:{nltk.__version__}"
