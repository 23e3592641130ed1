"""Parts that pages are made of, apart from what any page says: numbers, cells, tables, figures, rendering.

A page is a template that extends ``base.html`` and takes these parts; ``parts.html`` turns them into HTML.
Everything is escaped except figures, which are SVG that Composer drew itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from pathlib import Path
from typing import Any

from ...files.jsonfile import write_text

DASH = "–"


@dataclass(frozen=True)
class Column:
    """A table's column; ``unit`` stands below the heading, ``group`` above neighbours that share it."""

    heading: str
    unit: str = ""
    numeric: bool = True
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    ``better`` marks it, and ``mark`` says to a screen reader why; ``note`` is small print below; ``bar``
    (0 to 1) is drawn under it.
    """

    text: str
    better: bool = False
    bar: float | None = None
    note: str = ""
    mark: str = "better"


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is the row's heading. ``total`` counts summing rows at the end.

    ``folded`` hides it behind its caption until it is wanted: the numbers of a picture beside it.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    total: int = 0
    folded: bool = False

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighbouring columns of one group with their number; empty when no column has a group."""
        if not any(column.group for column in self.columns):
            return []
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and column.group and found[-1][0] == column.group:
                found[-1] = column.group, found[-1][1] + 1
            else:
                found.append((column.group, 1))
        return found


@dataclass(frozen=True)
class Figure:
    """One or more drawings under one caption. ``svgs`` are trusted: they go into the page unescaped.

    ``wide`` ones keep their size and scroll; ``size`` (small or tiny) says how many stand side by side.
    """

    name: str
    caption: str
    svgs: Sequence[str]
    wide: bool = False
    size: str = ""


@dataclass(frozen=True)
class Tile:
    """A figure worth a second of attention: a large value with a line below it."""

    value: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of a page with its heading; what is empty is left out."""

    name: str
    heading: str
    lead: str = ""
    parts: Sequence[Table | Figure] = field(default_factory=tuple)


def render(template: str, **context: Any) -> str:
    """Fill a template of ``composer/report/kit/templates``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("composer.report.kit", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["figure"] = lambda part: isinstance(part, Figure)
    return environment.get_template(template).render(context)


def write_page(output: Path, template: str, **context: Any) -> None:
    """Fill a template and write it, whole or not at all."""
    write_text(output, render(template, **context))


def dig(value: Any, *keys: str) -> Any:
    """A value inside mappings; None as soon as something is missing.

    >>> dig({"a": {"b": 1}}, "a", "b"), dig({"a": None}, "a", "b")
    (1, None)
    """
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def amount(value: Any) -> float | None:
    """The value as a finite float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return None
    return float(value)


def number(value: Any, digits: int = 0, suffix: str = "") -> str:
    """A number for people, or a dash.

    >>> number(1234.5678, 1), number(None), number(float("nan")), number(-0.00001, 2)
    ('1,234.6', '–', '–', '0.00')
    """
    known = amount(value)
    if known is None:
        return DASH
    return f"{round(known, digits) + 0.0:,.{digits}f}{suffix}"


def percent(value: Any, digits: int = 1) -> str:
    """A fraction as per cent, or a dash.

    >>> percent(0.256), percent(None)
    ('25.6%', '–')
    """
    known = amount(value)
    return DASH if known is None else number(100 * known, digits, "%")


def seconds(value: Any) -> str:
    """A duration in the unit that suits it.

    >>> seconds(0.5), seconds(75), seconds(600), seconds(10000), seconds(None)
    ('0.50 s', '75 s', '10.0 min', '2.8 h', '–')
    """
    known = amount(value)
    if known is None:
        return DASH
    if known < 120:
        return number(known, 0 if known >= 60 else 1 if known >= 10 else 2, " s")
    return number(known / 60, 1, " min") if known < 7200 else number(known / 3600, 1, " h")


def fraction(value: Any) -> str:
    """A number as a simple fraction.

    >>> fraction(0.25), fraction(1.0), fraction(None)
    ('1/4', '1', '–')
    """
    known = amount(value)
    return DASH if known is None else str(Fraction(known).limit_denominator(64))


def pair(left: Any, right: Any, show: Any, *, lower: bool) -> tuple[Cell, Cell]:
    """Two cells side by side; the better one is marked when both are known and look different."""
    a, b = amount(left), amount(right)
    texts = show(left), show(right)
    if a is None or b is None or texts[0] == texts[1]:
        return Cell(texts[0]), Cell(texts[1])
    first = (a < b) == lower
    return Cell(texts[0], better=first), Cell(texts[1], better=not first)


def plain(value: Any) -> str:
    """Any value of a recipe as a line of text."""
    if value is None or value == "":
        return DASH
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def provenance_facts(record: Any) -> list[tuple[str, str]]:
    """What a record says about how a result can be repeated."""
    names = {"versions": "Versions", "machine": "Machine", "seed": "Seed", "data": "Data"}
    return [(text, plain(dig(record, key)) or DASH) for key, text in names.items()]
