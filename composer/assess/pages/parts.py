"""What a section of a page consists of: its parts, and the pictures that also become files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Picture

from ...report.kit import canvas
from ...report.kit.components import Cell, Column, Figure, Section, Table, amount, number

SUFFIXES = (".png", ".svg")
WIDEST = 420.0
"""Points; a drawing that is wider keeps its size on the page and scrolls."""


@dataclass(frozen=True)
class Drawing:
    """A picture with what a screen reader says: a label, and a description when it is asked to."""

    name: str
    picture: Picture
    label: str
    description: str = ""

    @property
    def svg(self) -> str:
        """For a page."""
        return canvas.inline(self.picture, self.name, self.label, description=self.description)

    @property
    def width(self) -> float:
        """In points."""
        return float(72 * self.picture.get_figwidth())


@dataclass
class Part:
    """A section of a page, and the pictures that are kept as files, by name."""

    section: Section
    files: dict[str, Picture] = field(default_factory=dict)

    def save(self, folder: Path, *sources: Path) -> None:
        """Write the pictures as PNG and SVG, where they are older than a file they are made from."""
        made = max(source.stat().st_mtime_ns for source in sources)
        for name, picture in self.files.items():
            for path in (folder / f"{name}{suffix}" for suffix in SUFFIXES):
                if not path.is_file() or path.stat().st_mtime_ns < made:
                    canvas.save(picture, path)


def figure(name: str, caption: str, drawings: Sequence[Drawing], size: str = "") -> Figure:
    """Drawings under one caption; too wide ones scroll."""
    wide = any(drawing.width > WIDEST for drawing in drawings)
    return Figure(name, caption, [drawing.svg for drawing in drawings], wide, "" if wide else size)


def rise(value: Any, dense: Any, digits: int = 3) -> str:
    """A loss as its distance from the dense one.

    >>> rise(1.5, 1.25), rise(1.0, 1.25, 2), rise(None, 1)
    ('+0.250', '−0.25', '–')
    """
    a, b = amount(value), amount(dense)
    if a is None or b is None:
        return number(None)
    text = number(abs(a - b), digits)
    return f"{'−' if a < b else '+'}{text}" if float(text) else text


def table(
    name: str, caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], *, folded: bool = False
) -> Table:
    """A table of texts and cells."""
    made = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    return Table(name, caption, columns, made, folded=folded)


def unit_of(content: Mapping[str, Any]) -> str:
    """The unit of a file's losses."""
    return str(content.get("unit") or "nats")
