"""Figures as files and as inline SVG: colours, deterministic bytes, light and dark.

Figures are drawn with the object API (never pyplot) in the colours below. A file gets them as they are,
on white. Inline SVG gets CSS variables in their place, so that a page's light and dark styles apply.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from ...errors import InputError
from ...files.atomic import replacing

# Wong, "Points of view: Color blindness", Nature Methods 8 (2011); without yellow and black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b8609a", "#d08f00", "#3f9fd8")
MARKERS = "osD^vPX"
INK, FAINT, RULE, SURFACE, GREY = "#1b1f24", "#5b6470", "#d5d9e0", "#fefefe", "#868e99"
VARIABLES = {INK: "--ink", FAINT: "--faint", RULE: "--rule", SURFACE: "--card"} | {
    colour: f"--s{i}" for i, colour in enumerate(PALETTE)
}
SUFFIXES = {".png": "png", ".svg": "svg"}
TICKS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)

_STYLE: dict[str, Any] = {
    "font.size": 9,
    "font.family": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": SURFACE,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "svg.hashsalt": "composer",
    "text.parse_math": False,
}


def style() -> Any:
    """Context in which figures are made; matplotlib's own settings come back afterwards."""
    context: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_STYLE}
    context = {k: v for k, v in context.items() if not k.startswith(("backend", "toolbar", "interactive"))}
    return matplotlib.rc_context(context)


def check_suffix(output: Path) -> str:
    """The image format that the file's suffix asks for."""
    if output.suffix.lower() not in SUFFIXES:
        allowed = " or ".join(SUFFIXES)
        raise InputError(f"{output}: the suffix is {output.suffix!r}; allowed: {allowed}")
    return SUFFIXES[output.suffix.lower()]


def save(figure: Figure, output: Path) -> None:
    """Write a figure as PNG or SVG by suffix, whole or not at all; equal figures give equal bytes."""
    kind = check_suffix(output)
    with style(), replacing(output) as temporary:
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(temporary, format=kind, dpi=144, metadata=metadata)


def inline(figure: Figure, name: str, label: str, *, scale: float = 1.0, description: str = "") -> str:
    """A figure as an ``<svg>`` element for a page.

    Args:
        name: prefix of all ids in it, so that several figures fit on one page.
        label: what a screen reader says.
        scale: how large it is shown where there is room.
        description: what a screen reader says after that, when it is asked to.
    """
    file = io.StringIO()
    with style(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svg = file.getvalue()
    # What a page has anyway (styles, metadata) goes; ids get the prefix, or the second figure of a page would draw with
    # the first one's markers; fonts and colours become the page's own, so that its dark style applies.
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns:xlink="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", "system-ui, sans-serif")
    for colour, variable in VARIABLES.items():
        svg = re.sub(rf"{colour}\b", f"var({variable})", svg)
    width, height = (round(float(x), 1) for x in re.findall(r'(?:width|height)="([\d.]+)pt"', svg)[:2])
    description_element = f'<desc id="{name}-description">{escape(description)}</desc>' if description else ""
    about = f' aria-describedby="{name}-description"' if description else ""
    head = f'<svg role="img" aria-label="{escape(label)}"{about} style="stroke-linejoin: round" viewBox='
    head += f'"0 0 {width} {height}" width="{width * scale:g}" height="{height * scale:g}" '
    head += f'xmlns="http://www.w3.org/2000/svg">{description_element}'
    return head + svg[svg.index(">") + 1 :]


def blend(colour: str, other: str, part: float) -> str:
    """Mix ``part`` (0 to 1) of ``other`` into ``colour``.

    >>> blend("#000000", "#ffffff", 0.5)
    '#808080'
    """
    pairs = [(int(colour[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * (1 - part) + b * part):02x}" for a, b in pairs)


def loss_axis(axes: Axes, values: Sequence[float], label: str) -> None:
    """Scale and ticks for these losses: a log axis with plain numbers where they span a factor over 4."""
    known = [v for v in values if v == v]
    low, high = min(known, default=1.0), max(known, default=2.0)
    if low <= 0 or high / low <= 4:
        axes.set_ylabel(label)
        margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)
        return
    axes.set_yscale("log")
    axes.set_ylabel(f"{label}, log scale")
    bottom, top = low * (high / low) ** -0.05, high * (high / low) ** 0.05
    axes.set_ylim(bottom, top)
    ticks = [t * 10.0**e for e in range(-12, 13) for t in TICKS if bottom <= t * 10.0**e <= top]
    ticks = ticks[:: -(-len(ticks) // 8)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def legend(figure: FigureBase, handles: Sequence[Any], columns: int) -> None:
    """Below the axes, where it covers nothing."""
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        fontsize=8,
    )
