"""The layouts of SQuAD: articles with paragraphs and questions, or one question per row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import DataError
from .formats import MISSING, Table

Answer = tuple[str, int]
"""Text of an answer, and the character of the context where it starts."""

OFF_BY = 2
"""Known data sets place some answers a character or two away from where they are."""


def unfold(table: Table) -> Table:
    """One row per question, of a file as SQuAD publishes it (one object with ``data``); other tables as they are."""
    articles = table.columns.get("data")
    if articles is None or len(table) != 1 or not isinstance(articles[0], list):
        return table
    rows = list(_questions(table.place, articles[0]))
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("question", "context", "answers"))}
    return Table(table.place, table.source, columns, range(1, len(rows) + 1))


def _questions(place: str, articles: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    for i, article in enumerate(articles):
        for j, paragraph in enumerate(_part(article, "paragraphs", f"{place}: data[{i}]")):
            where = f"{place}: data[{i}].paragraphs[{j}]"
            context = _part(paragraph, "context", where)
            for k, question in enumerate(_part(paragraph, "qas", where)):
                at = f"{where}.qas[{k}]"
                impossible = isinstance(question, dict) and question.get("is_impossible")
                yield _part(question, "question", at), context, [] if impossible else _part(question, "answers", at)


def _part(value: Any, key: str, where: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise DataError(f"{where}: no {key!r} in it; expected is the layout of SQuAD")
    if key in ("paragraphs", "qas") and not isinstance(value[key], list):
        raise DataError(f"{where}: {key!r} is {type(value[key]).__name__}, expected is a list")
    return value[key]


def answers_of(table: Table, row: int) -> list[Answer] | str:
    """Answers of one row, either ``{"text": [...], "answer_start": [...]}`` or a list of ``{"text", "answer_start"}``;
    or what is wrong with them."""
    value, context = table.columns["answers"][row], table.columns["context"][row]
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        fits = isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)
        value = [{"text": a, "answer_start": b} for a, b in zip(texts or (), starts or (), strict=True)] if fits else 0
    if not isinstance(value, list) or not all(_is_answer(answer) for answer in value):
        got = "missing" if table.columns["answers"][row] is MISSING else repr(table.columns["answers"][row])
        return f"{table.at(row)}: answers is {got:.80}; expected are texts with answer_start"
    answers = [(answer["text"], answer["answer_start"]) for answer in value]
    lost = next((answer for answer in answers if locate(context or "", *answer) is None), None)
    return f"{table.at(row)}: the answer {lost[0]!r} is not at character {lost[1]} of the context" if lost else answers


def _is_answer(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str) and type(value.get("answer_start")) is int


def locate(context: str, text: str, start: int) -> tuple[int, int] | None:
    """Characters (start, end) of an answer without the blanks around it, searched near ``start``; None where it is
    not there."""
    for place in sorted(range(max(0, start - OFF_BY), start + OFF_BY + 1), key=lambda place: abs(place - start)):
        if context.startswith(text, place):
            return place + len(text) - len(text.lstrip()), place + len(text.rstrip())
    return None
