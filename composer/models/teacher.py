"""Whether a model can teach another one: it must read the same tokens and give the same answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .storage import auto_class

if TYPE_CHECKING:
    from .family import ModelConfig
    from .folder import BaseModel


def check_teacher(teacher: BaseModel, model: BaseModel) -> None:
    """Refuse a teacher with another head, tokenizer or label set.

    Raises:
        ModelError: naming both, and what differs.
    """
    if teacher.fingerprint == model.fingerprint:
        return
    problems = other_answers(teacher.config, model.config) or _tokens(teacher, model)
    if problems:
        raise ModelError([f"--teacher: {teacher.name}: {problem}" for problem in problems[:1]])


def other_answers(theirs: ModelConfig, ours: ModelConfig) -> list[str]:
    """Why a model of the configuration ``theirs`` answers other questions than one of ``ours``, or by other names."""
    return [*_head(theirs, ours), *_labels(theirs, ours)]


def _head(theirs: ModelConfig, ours: ModelConfig) -> list[str]:
    if auto_class(theirs) == auto_class(ours):
        return []
    names = ((one.get("architectures") or ["a body without a head"])[0] for one in (theirs, ours))
    return ["is a {}, the model a {}; a teacher answers the same questions".format(*names)]


def _labels(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Of classifiers; names that nobody gave (``LABEL_0``) are as good as any."""
    named = [_names(config) for config in (theirs, ours)]
    told = ["none" if not names else ", ".join(names) for names in named]
    if len(named[0]) != len(named[1]) or (all(map(_given, named)) and named[0] != named[1]):
        return ["has the labels {}, the model {}; a teacher needs the same, in the same order".format(*told)]
    return []


def _names(config: Mapping[str, Any]) -> list[str]:
    if not str((config.get("architectures") or [""])[0]).endswith(
        ("ForSequenceClassification", "ForTokenClassification")
    ):
        return []
    by_id = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    return [by_id[number] for number in sorted(by_id)] or [f"LABEL_{i}" for i in range(config.get("num_labels") or 2)]


def _given(names: list[str]) -> bool:
    return names != [f"LABEL_{i}" for i in range(len(names))]


def _tokens(teacher: BaseModel, model: BaseModel) -> list[str]:
    theirs, ours = _vocabulary(teacher.folder), _vocabulary(model.folder)
    if theirs is None or ours is None:
        sizes = [one.config.get("vocab_size") for one in (teacher, model)]
        same = sizes[0] == sizes[1]
        return [] if same else ["has {} words, the model {}; a teacher needs the same tokenizer".format(*sizes)]
    if theirs == ours:
        return []
    token = next(iter(sorted(theirs.items() ^ ours.items())))[0]
    places = [f"number {words[token]}" if token in words else "no token" for words in (theirs, ours)]
    return [f"another tokenizer: {token!r} is {places[0]} there, and {places[1]} in the model"]


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token -> number; None where no tokenizer stands beside the weights."""
    from transformers import AutoTokenizer

    try:
        return dict(AutoTokenizer.from_pretrained(folder).get_vocab())
    except (OSError, ValueError, KeyError):
        return None
