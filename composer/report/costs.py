"""What the work costs, as pictures: drawn from the ledger of ``results/comparison.json`` and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from . import looks
from .kit import canvas
from .kit.canvas import INK, MARKERS, PALETTE
from .records import SIDES, Ledger, Side

LABELS = {"baseline": "baselines", "composed": "composed"}
WORK = "all work (s)"
SHOWN = 4
"""Numbers of configurations of which the picture shows the way: more lines are a tangle."""


def draw(ledger: Ledger, output: Path) -> None:
    """Both pictures side by side, as PNG or SVG by suffix."""
    with canvas.style():
        figure = Figure(figsize=(10.4, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_growth(left, ledger)
        left.legend(fontsize=8)
        if ledger.lines:
            draw_quality(right, ledger)
            right.legend(fontsize=8)
        else:
            right.set_visible(False)
    canvas.save(figure, output)


def growth_figure(ledger: Ledger) -> Figure:
    """All work of both sides against the number of configurations."""
    return _single(draw_growth, ledger)


def quality_figure(ledger: Ledger) -> Figure:
    """Mean validation loss against all work, for several numbers of configurations."""
    return _single(draw_quality, ledger)


def _single(draw: Callable[[Axes, Ledger], None], ledger: Ledger) -> Figure:
    """One of the two pictures in a figure of its own, its legend below."""
    with canvas.style():
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        draw(axes, ledger)
        handles = axes.get_legend_handles_labels()[0]
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def draw_growth(axes: Axes, ledger: Ledger) -> None:
    """Seconds on the left, the same in dense training steps on the right; a mark where composing begins to pay."""
    counts = [k.configurations for k in ledger.growth]
    for side, look in _looks().items():
        spent = [k.of(side).seconds for k in ledger.growth]
        axes.plot(counts, spent, **look, label=LABELS[side])
    pays = ledger.pays_from
    if pays is not None and pays <= counts[-1]:
        axes.axvline(pays, color=INK, linewidth=1, linestyle=(0, (1, 2)), label=f"pays from {pays}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("configurations")
    axes.set_ylabel(WORK)
    axes.set_title("until the baseline's final loss")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    _steps_beside(axes.secondary_yaxis("right", functions=_in_steps(ledger)).set_ylabel)


def draw_quality(axes: Axes, ledger: Ledger) -> None:
    """A pair of lines for each number of configurations that is shown, ending at what the ledger adds up to."""
    drawn: list[float] = []
    known = {line.configurations: line for line in ledger.lines}
    for i, count in enumerate(shown(list(known))):
        colour, marker = PALETTE[i], MARKERS[i]
        for side, look in _looks(colour, marker).items():
            points = known[count].of(side)
            losses = [point.loss for point in points]
            label = f"{count} {LABELS[side]}"
            axes.plot([point.seconds for point in points], losses, **look, label=label)
            drawn += losses
    canvas.loss_axis(axes, drawn, "mean validation loss (nats)")
    axes.set_xlim(left=0)
    axes.set_xlabel(WORK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    _steps_beside(axes.secondary_xaxis("top", functions=_in_steps(ledger)).set_xlabel)


def shown(counts: Sequence[int]) -> list[int]:
    """1, 2, 4, … and the last: of many the largest.

    >>> shown([1, 2, 3]), shown(range(1, 17))
    ([1, 2, 3], [2, 4, 8, 16])
    """
    doubling = [count for count in counts if count & (count - 1) == 0 or count == counts[-1]]
    return doubling[-SHOWN:]


def _looks(colour: str = PALETTE[0], marker: str = MARKERS[0]) -> dict[Side, dict[str, Any]]:
    """Both sides' lines, as in all pictures."""
    return {side: looks.line(looks.look_of(colour, marker, pale=side == "baseline")) for side in SIDES}


def _in_steps(ledger: Ledger) -> Any:
    """Seconds to dense training steps and back, as matplotlib's second axes take them."""
    step = ledger.step_seconds or 1.0
    return lambda seconds: seconds / step, lambda steps: steps * step


def _steps_beside(name: Any) -> None:
    name("the same in dense training steps")
