"""Draw docs/flow.svg, from rates to models: the rooms of `composer/` and the files between them (`make docs`).

What a room is, is the first line of its package's docstring; a new folder that is not placed below is an error.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "composer"

WIDTH = 880
ROOM_X, ROOM_WIDTH, ROOM_HEIGHT, ROW = 54, 382, 84, 104
FILE_X, FILE_WIDTH = 470, 196
SIDE_X, SIDE_WIDTH = 692, 174
LINE = 16
"""Height of a line of text."""
CHARACTER = 7.1
"""Width of a character of 13 px, wider than most fonts have it, so that text stays within its box."""

SANS, MONO = "Helvetica, Arial, DejaVu Sans, sans-serif", "Menlo, Consolas, DejaVu Sans Mono, monospace"
INK, GREY = "#24292f", "#57606a"
TEXT = {
    "plain": f'font-family="{SANS}" font-size="13" fill="{INK}"',
    "name": f'font-family="{SANS}" font-size="14" font-weight="bold" fill="{INK}"',
    "file": f'font-family="{MONO}" font-size="12" fill="{INK}"',
    "command": f'font-family="{MONO}" font-size="12" fill="{GREY}"',
}
BOX = {
    "room": 'fill="#eaf2fb" stroke="#4a78b0"',
    "optional": 'fill="#eaf2fb" stroke="#4a78b0" stroke-dasharray="5 3"',
    "file": 'fill="#fff8e3" stroke="#b08a2e"',
    "ground": 'fill="#f3f4f6" stroke="#8c959f"',
}
"""Attributes rather than a style sheet: every viewer knows them."""


@dataclass(frozen=True)
class Room:
    """A folder on the way: which commands work in it, what it leaves behind, does it read base model and data."""

    folder: str
    commands: str
    files: Sequence[str]
    reads: bool = False
    optional: bool = False


WAY = (
    Room("assess", "assess", ("assessment/*.json", "assess.html"), reads=True, optional=True),
    Room("choosing", "assess --sparsity", ("assessment/conf.json",), optional=True),
    Room("scheme", "generate-config, generate-scheme", ("conf.json", "conf_prune.json"), reads=True),
    Room("calibration", "prune, finetune", ("statistics of inputs", "(in memory)"), reads=True),
    Room("pruning", "prune", ("modules/pruned",)),
    Room("training/blocks", "finetune --level block", ("modules/finetuned", "stats/block.csv"), reads=True),
    Room("composing", "build-model -n i", ("models/i",), reads=True),
    Room("shrinking", "shrink", ("models/i-shrunk",), optional=True),
    Room("simplifying", "simplify", ("models/i-simple",), reads=True, optional=True),
    Room("training", "finetune --level model", ("models/i-finetuned", "models/i-baseline", "stats/*.csv"), reads=True),
    Room("evaluation", "evaluate", ("results/*.json",), reads=True),
    Room("report", "compare", ("results/comparison.json", "report.html", "ledger.png")),
)
"""The work in its order."""
ABOVE = ("cli", "recipe", "steps")
BESIDE = {
    "forecast": ("scheme", "scheme"),
    "library": ("pruning", "training/blocks"),
    "timing": ("composing", "composing"),
    "exporting": ("training", "evaluation"),
}
"""Rooms beside the files from one room to another."""
UNDER = ("tasks", "models", "tensors", "parallel", "files", "demo")


def about(folder: str) -> str:
    """What the docstring of a package says first."""
    text = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text("utf-8")))
    if not text:
        raise SystemExit(f"composer/{folder}/__init__.py: no docstring; needed: one line that says what is in it")
    return text.splitlines()[0].replace("`", "")


def check_placed() -> None:
    """Every folder of the package stands in the picture."""
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    placed = {room.folder.partition("/")[0] for room in WAY} | {*ABOVE, *BESIDE, *UNDER}
    if there != placed:
        raise SystemExit(f"docs/make_flow.py: places {sorted(placed)}; composer/ has {sorted(there)}")


def words(x: float, y: float, text: str, look: str = "plain", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" {TEXT[look]} text-anchor="{anchor}">{escape(text)}</text>'


def rectangle(x: float, y: float, width: float, height: float, look: str) -> str:
    """A box."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" {BOX[look]}/>'


def line(x: float, y: float, x2: float, y2: float) -> str:
    """A straight line."""
    return f'<path d="M{x:g} {y:g} L{x2:g} {y2:g}" fill="none" stroke="{GREY}" stroke-width="1.4"/>'


def arrow(x: float, y: float, end: float) -> Iterator[str]:
    """A level line with a head at its end."""
    back = 8 if end > x else -8
    yield line(x, y, end - back, y)
    yield f'<path d="M{end:g} {y:g} l{-back} -4 v8 Z" fill="{GREY}"/>'


def box(x: float, y: float, width: float, height: float, folder: str, look: str, commands: str = "") -> Iterator[str]:
    """A room: its name, its commands beside it, what it is below."""
    yield rectangle(x, y, width, height, look)
    yield words(x + 12, y + 21, f"{folder}/", "name")
    if commands:
        yield words(x + width - 12, y + 20, commands, "command", "end")
    lines = textwrap.wrap(about(folder), int((width - 24) / CHARACTER))
    if 30 + LINE * len(lines) > height:
        raise SystemExit(
            f"composer/{folder}/__init__.py: its first line is too long for the picture: {len(lines)} lines"
        )
    for i, line in enumerate(lines):
        yield words(x + 12, y + 41 + LINE * i, line)


def document(y: float, height: float, names: Sequence[str]) -> Iterator[str]:
    """Files that lie between two rooms: a sheet with a folded corner."""
    right, fold = FILE_X + FILE_WIDTH, 11
    yield rectangle(FILE_X, y, FILE_WIDTH, height, "file")
    yield f'<path d="M{right - fold} {y - 1:g} H{right + 1} V{y + fold:g} Z" fill="#ffffff"/>'
    yield f'<path d="M{right - fold} {y:g} V{y + fold:g} H{right} Z" {BOX["file"]}/>'
    first = y + height / 2 + 4 - LINE * (len(names) - 1) / 2
    for i, name in enumerate(names):
        yield words(FILE_X + 12, first + LINE * i, name, "file")


def place(i: int) -> float:
    """The top of a room on the way."""
    return 150 + ROW * i


def way() -> Iterator[str]:
    """Rooms one below the other; the files of each lie between it and the next, which begins from them."""
    end = ROOM_X + ROOM_WIDTH
    for i, room in enumerate(WAY):
        top, last = place(i), i == len(WAY) - 1
        look = "optional" if room.optional else "room"
        yield from box(ROOM_X, top, ROOM_WIDTH, ROOM_HEIGHT, room.folder, look, room.commands)
        leaves, enters = top + 0.78 * ROOM_HEIGHT, top + ROW + 0.22 * ROOM_HEIGHT
        yield from document(leaves - 13, 64 if last else enters - leaves + 26, room.files)
        yield from arrow(end, leaves, FILE_X - 3)
        if not last:
            yield from arrow(FILE_X, enters, end + 3)


def inputs() -> Iterator[str]:
    """The base model and the data, and a rail to the rooms that read them."""
    rail, top = 30, 92
    yield rectangle(14, top, ROOM_X + ROOM_WIDTH - 14, 34, "file")
    yield words(26, top + 22, "base model (a Hugging Face folder) and data", "file")
    reading = [place(i) + ROOM_HEIGHT / 2 for i, room in enumerate(WAY) if room.reads]
    yield words(FILE_X, top + 22, "Yellow: files. Dashed: may be left out.")
    yield line(rail, top + 34, rail, reading[-1])
    for y in reading:
        yield from arrow(rail, y, ROOM_X - 3)


def beside() -> Iterator[str]:
    """Rooms that look after files, or look at them."""
    number = {room.folder: i for i, room in enumerate(WAY)}
    for folder, (first, last) in BESIDE.items():
        middles = [place(number[name]) + 0.78 * ROOM_HEIGHT + 30 for name in (first, last)]
        height = 130
        top = sum(middles) / 2 - height / 2
        commands = {"forecast": "plan", "library": "library", "timing": "speed", "exporting": "export"}[folder]
        yield from box(SIDE_X, top, SIDE_WIDTH, height, folder, "room", commands)
        for y in dict.fromkeys(middles):
            yield from arrow(FILE_X + FILE_WIDTH, y, SIDE_X - 3)


def grid(top: float, folders: Sequence[str], columns: int, height: float) -> Iterator[str]:
    """Rooms side by side over the whole width."""
    gap = 12
    width = (WIDTH - 28 - gap * (columns - 1)) / columns
    for i, folder in enumerate(folders):
        x, y = 14 + (width + gap) * (i % columns), top + (height + gap) * (i // columns)
        yield from box(x, y, width, height, folder, "ground")


def picture() -> str:
    """The whole picture."""
    check_placed()
    bottom = place(len(WAY)) + 36
    height = bottom + 240
    parts = [
        *grid(14, ABOVE, 3, 64),
        *inputs(),
        *way(),
        *beside(),
        words(14, bottom, "Under all of them", "name"),
        *grid(bottom + 12, UNDER, 3, 96),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">',
            "<title>From rates to models: the rooms of composer, and the files between them</title>",
            f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    (Path(__file__).parent / "flow.svg").write_text(picture(), encoding="utf-8")
