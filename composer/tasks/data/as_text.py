"""Tables of problems read as running text, as calibration sets are: each row with all that it says, line by line.

============================================  =================================================================
columns                                       the text of a row
============================================  =================================================================
``question``, ``choices``, ``answer``         the question, and the choice that the answer counts (from 0)
``ctx``, ``endings``, ``label``               the same, as HellaSwag has it
``goal``, ``sol1``, ``sol2``, ``label``       the same, as PIQA has it
``passage``, ``question``, ``answer``         all three; true and false are ``yes`` and ``no`` (BoolQ)
``question``, ``answer``                      both (GSM8K)
``instruction``, ``input``, ``output``        all three; ``input`` may be empty or missing (Alpaca)
``prompt``, ``canonical_solution``            both, the second right after the first (HumanEval)
``prompt``, ``completion``                    the same
``text``, ``code``                            both (MBPP)
============================================  =================================================================

The first that fits counts. A table with any other column of texts is read by that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import DataError, shown
from .formats import MISSING, Table, few

Cells = Sequence[Any]


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise ValueError(f"is {shown(cell)}, expected is text")
    return cell.strip("\r\n").replace("\r\n", "\n")


def _lines(cells: Cells) -> str:
    return "\n".join(text for cell in cells if (text := _text(cell)).strip())


def _joined(cells: Cells) -> str:
    """A program and what goes on from it: blanks and line ends count."""
    if not all(isinstance(cell, str) for cell in cells):
        return _lines(cells)  # which says what is wrong
    return "".join(cells)


def _choice(question: Any, choices: Any, right: Any) -> str:
    if not isinstance(choices, (list, tuple)):
        raise ValueError(f"has {shown(choices)} where a list of choices is expected")
    number = int(right) if isinstance(right, (int, str)) and str(right).strip().lstrip("-").isdigit() else None
    if number is None or isinstance(right, bool) or not 0 <= number < len(choices):
        raise ValueError(f"has the right answer {shown(right)}; allowed: 0 to {len(choices) - 1}")
    return _lines([question, choices[number]])


def _instruction(cells: Cells) -> str:
    given = cells[1] if cells[1] is not MISSING and cells[1] is not None else ""
    return _lines([cells[0], given, cells[2]])


def _passage(cells: Cells) -> str:
    passage, question, answer = cells
    said = {True: "yes", False: "no"}[answer] if isinstance(answer, bool) else answer
    return _lines([passage, question, said])


Reading = Callable[[Cells], str]
LAYOUTS: tuple[tuple[tuple[str, ...], Reading], ...] = (
    (("question", "choices", "answer"), lambda cells: _choice(*cells)),
    (("ctx", "endings", "label"), lambda cells: _choice(*cells)),
    (("goal", "sol1", "sol2", "label"), lambda cells: _choice(cells[0], cells[1:3], cells[3])),
    (("passage", "question", "answer"), _passage),
    (("question", "answer"), _lines),
    (("instruction", "input", "output"), _instruction),
    (("instruction", "output"), _lines),
    (("prompt", "canonical_solution"), _joined),
    (("prompt", "completion"), _joined),
    (("text", "code"), _lines),
)
"""Columns -> how a row of them reads; see the module."""


def layout_of(table: Table) -> tuple[tuple[str, ...], Reading] | None:
    """The first of :data:`LAYOUTS` whose columns are all there."""
    return next((found for found in LAYOUTS if set(found[0]) <= set(table.columns)), None)


def problem_texts(table: Table) -> list[str] | None:
    """The rows of a table of problems as texts; None where its columns are none of :data:`LAYOUTS`.

    Raises:
        DataError: cells that cannot be read so, by file and line.
    """
    found = layout_of(table)
    if found is None:
        return None
    columns, reading = found
    texts, problems = [], []
    for row, cells in enumerate(zip(*(table.columns[name] for name in columns), strict=True)):
        try:
            texts.append(reading(cells))
        except ValueError as bad:
            problems.append(f"{table.at(row)}: read as {', '.join(columns)}: {bad}")
    if problems:
        raise DataError(few(problems))
    return texts
