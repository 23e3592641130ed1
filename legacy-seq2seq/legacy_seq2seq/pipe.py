"""Lines and vocabularies: by torchtext and torchdata where they are installed, else by what gives the same result.

torchtext 0.18 is the last one and loads only beside torch 2.3; nothing that is written to a model's folder needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from . import vocabulary


def has_torchtext() -> bool:
    """Whether the vocabulary comes from torchtext."""
    return find_spec("torchtext") is not None and find_spec("torchdata") is not None


def lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file, without their ends."""
    if not has_torchtext():
        with file.open(encoding="utf-8", newline="\n") as stream:
            return [line.rstrip("\r\n") for line in stream]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata says at import that its datapipes are deprecated
        from torchdata.datapipes.iter import FileOpener
    return list(FileOpener([str(file)], mode="r", encoding="utf-8").readlines(return_path=False))


def build(sentences: Iterable[str], min_frequency: int = 2) -> list[str]:
    """The specials, then every word that occurs ``min_frequency`` times, frequent ones first."""
    if not has_torchtext():
        return vocabulary.build(map(vocabulary.tokenise, sentences), min_frequency)
    import torchtext

    torchtext.disable_torchtext_deprecation_warning()
    from torchtext.data.utils import get_tokenizer
    from torchtext.vocab import build_vocab_from_iterator

    tokens = map(get_tokenizer("basic_english"), sentences)
    words = build_vocab_from_iterator(tokens, min_freq=min_frequency, specials=list(vocabulary.SPECIALS))
    return list(words.get_itos())
