"""Calibration sets as examples of the model's task: in the task's own columns, or any text that the model can read."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ...files.jsonfile import digest_of
from ...steps.evaluate import names_apart
from ...tasks.data.splits import read_running_text
from ...tasks.texts import TextTask, table_texts
from ...workspace import Workspace
from ..measure.assessed_model import AssessedModel
from ..measure.calibrations import opened

if TYPE_CHECKING:
    from ...tasks.task import Examples, Task

SHORTEST, LONGEST = 5, 30
"""Words of a sentence that is taken from running text."""
OF_EACH = 3
"""Most sentences of one text, so that none is all of the sample."""


@dataclass(frozen=True)
class CalibrationSet:
    """What is drawn from.

    Attributes:
        name: short, and different for each.
        place: as the user gave it.
        digest: of what it holds.
        read_as: in words.
        load: its task and examples; may run the base model.
    """

    name: str
    place: str
    digest: str
    read_as: str
    load: Callable[[], tuple[Task, Examples]]


def calibration_sets(subject: AssessedModel) -> list[CalibrationSet]:
    """The sets of ``--calibration``, and the training split of ``--data`` where it was named, first.

    All are read before anything is computed.

    Raises:
        DataError: one that cannot be read, by its name.
    """
    own = subject.space.recipe.data
    places = list(dict.fromkeys([*([own] if own else []), *subject.settings.calibrations]))
    names = names_apart([Path(place) for place in places], [_short(Path(place)) for place in places])
    return [_set(subject, place, names[Path(place)], own=place == own) for place in places]


def _short(place: Path) -> str:
    return re.sub(r"[^\w.-]+", "-", place.stem if place.is_file() else place.name) or "set"


def _set(subject: AssessedModel, place: str, name: str, *, own: bool) -> CalibrationSet:
    try:
        with opened(subject, place) as space:
            task, examples = space.task, space.examples("train")
    except DataError as bad:
        task = Workspace(subject.space.recipe.model_copy(update={"data": place})).task
        if own or isinstance(task, TextTask) or task.name not in ANSWERED:
            raise
        return _answered(subject, place, name, task, bad)
    said = "running text" if isinstance(task, TextTask) else f"examples of {task.name.replace('_', ' ')}"
    return CalibrationSet(name, place, examples.digest, said, lambda: (task, examples))


def _answered(subject: AssessedModel, place: str, name: str, task: Task, bad: DataError) -> CalibrationSet:
    """Sentences of a text, with the base model's own answers for labels."""
    try:
        with opened(subject, place) as space:
            options = space.recipe.data_options
            read = read_running_text(options, "train", lambda table: [(t,) for t in table_texts(table, options)])
    except DataError as worse:
        raise DataError([*bad.problems, *(f"nor as text: {problem}" for problem in worse.problems)]) from None
    inputs = sentences((cell for (cell,) in read.rows), subject.space.recipe.calibration_size)
    if not inputs:
        raise DataError(f"--calibration: {place}: no sentence of {SHORTEST} to {LONGEST} words in it")
    digest = digest_of(["answered", inputs, subject.space.base.fingerprint])
    said = "sentences, with the base model's own answers"
    return CalibrationSet(name, place, digest, said, lambda: _examples(subject, place, task, inputs))


def _examples(subject: AssessedModel, place: str, task: Task, inputs: list[str]) -> tuple[Task, Examples]:
    answers = task.predict(subject.model, inputs)
    rows = ANSWERED[task.name](subject, inputs, answers)
    with tempfile.TemporaryDirectory() as folder:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for split in ("train", "validation"):  # nothing is held out of what is trained on: nothing is
            (Path(folder) / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        unnamed = {"data": folder, "text_column": None, "source_column": None, "target_column": None}
        space = Workspace(subject.space.recipe.model_copy(update=unnamed))
        return space.task, space.examples("train")


def _pairs(subject: AssessedModel, inputs: list[str], answers: list[str]) -> list[dict[str, Any]]:
    """A model that writes nothing is given the sentence itself: a pair needs two sides."""
    source, target = subject.space.recipe.source_lang, subject.space.recipe.target_lang
    return [{source: a, target: b.strip() or a} for a, b in zip(inputs, answers, strict=True)]


def _labelled(subject: AssessedModel, inputs: list[str], answers: list[str]) -> list[dict[str, Any]]:
    return [{"sentence": a, "label": b.rpartition(" (")[0]} for a, b in zip(inputs, answers, strict=True)]


ANSWERED = {"translation": _pairs, "classification": _labelled}
"""Task -> rows of its data from inputs and the base model's answers."""


def sentences(texts: Iterable[str], count: int) -> list[str]:
    """The first ``count`` sentences of ordinary length, a few of each text.

    >>> sentences(["Too short. This one has just enough words."], 3)
    ['This one has just enough words.']
    """
    return [text for text, _ in zip(_sentences(texts), range(count), strict=False)]


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        own = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.!?])\s+", text)]
        yield from [sentence for sentence in own if SHORTEST <= len(sentence.split()) <= LONGEST][:OF_EACH]
