"""Rows of the common-sense tasks, as files and the hub have them, read in the prompts of lm-eval's tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .suite import Row

Make = Callable[[Row], dict[str, Any]]
"""One row of a file -> ``prompt``, ``choices`` and ``gold``."""


@dataclass(frozen=True)
class Shape:
    """How a task's rows can come: the columns, and what reads a row."""

    columns: tuple[str, ...]
    make: Make


ASKED = "Question: {}\nAnswer:"
CHOSEN = ("question", "choices", "answer")
KEYED = ("question", "choices", "answerKey")


def _options(row: Row) -> list[str]:
    """Answers to choose from: a list, or the hub's pair of lists, ``text`` and ``label``."""
    choices = row["choices"]
    return [str(choice) for choice in (choices["text"] if isinstance(choices, Mapping) else choices)]


def _number(row: Row) -> int:
    """Of the right answer: ``answer`` counts from 0, the hub's ``answerKey`` is one of the labels."""
    if "answer" in row:
        return int(row["answer"])
    return list(row["choices"]["label"]).index(str(row["answerKey"]).strip())


def _chosen(question: str, style: str) -> Make:
    """Rows with ``choices``."""

    def make(row: Row) -> dict[str, Any]:
        return {"prompt": style.format(str(row[question])), "choices": _options(row), "gold": _number(row)}

    return make


def _piqa(row: Row) -> dict[str, Any]:
    choices = [str(row["sol1"]), str(row["sol2"])]
    return {"prompt": ASKED.format(row["goal"]), "choices": choices, "gold": int(row["label"])}


def _boolq(row: Row) -> dict[str, Any]:
    prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    gold = row["answer"] if "answer" in row else row["label"]
    return {"prompt": prompt, "choices": ["no", "yes"], "gold": int(bool(gold))}


def _winogrande(row: Row) -> dict[str, Any]:
    return _blank(str(row["question"]), _options(row), int(row["answer"]))


def _winogrande_on_hub(row: Row) -> dict[str, Any]:
    """There the answers count from 1."""
    return _blank(str(row["sentence"]), [str(row["option1"]), str(row["option2"])], int(row["answer"]) - 1)


def _blank(sentence: str, choices: Sequence[str], gold: int) -> dict[str, Any]:
    """What fills the blank stands in the context, and the rest of the sentence is what must be likely."""
    before, after = sentence.split("_", 1)
    contexts = [f"{before}{choice}" for choice in choices]
    return {"prompt": sentence, "choices": contexts, "suffix": after.strip(), "gold": gold}


def _hellaswag(row: Row) -> dict[str, Any]:
    context = f"{row['activity_label']}: {row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    return {"prompt": _clean(context), "choices": [_clean(e) for e in row["endings"]], "gold": int(row["label"])}


def _clean(text: str) -> str:
    """Without the marks of WikiHow, as lm-eval has it."""
    plain = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return plain.replace("  ", " ")


ARC = (Shape(CHOSEN, _chosen("question", ASKED)), Shape(KEYED, _chosen("question", ASKED)))
SHAPES = {
    "openbookqa": (
        Shape(CHOSEN, _chosen("question", "{}")),
        Shape(("question_stem", *KEYED[1:]), _chosen("question_stem", "{}")),
    ),
    "winogrande": (
        Shape(CHOSEN, _winogrande),
        Shape(("sentence", "option1", "option2", "answer"), _winogrande_on_hub),
    ),
    "boolq": (
        Shape(("question", "passage", "answer"), _boolq),
        Shape(("question", "passage", "label"), _boolq),
    ),
    "arc-easy": ARC,
    "arc-challenge": ARC,
    "hellaswag": (Shape(("activity_label", "ctx_a", "ctx_b", "endings", "label"), _hellaswag),),
    "piqa": (Shape(CHOSEN, _chosen("question", ASKED)), Shape(("goal", "sol1", "sol2", "label"), _piqa)),
}
"""The shapes in which each task's rows can come; the first whose columns are there counts."""
