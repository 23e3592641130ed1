"""What composing brings, as one picture: the loss of every model on both sides, and the work of both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .kit import canvas
from .kit.canvas import INK, PALETTE
from .records import SIDES, Comparison, Side

WORDS = {
    "prune every variant": "choose what goes",
    "block-level fine-tuning, once for all": "blocks, once for all",
    "joint tuning, all configurations together": "train all together",
    "learning-rate search of joint tuning": "search the rate",
    "learning-rate search": "search the rate",
    "compose the models": "compose",
    "fine-tune every configuration whole": "train each separately",
    "fine-tune composed models until they reach the baseline's loss": "train some further",
}
"""The ledger's lines in as few words as fit into a bar."""
ROOM = 0.07
"""Parts of a bar that are smaller than this part of the longest have no words in them."""


@dataclass(frozen=True)
class Headline:
    """The figures of the picture.

    Attributes:
        losses: validation loss of every model, (baseline, composed).
        dense: that of the base model as it is, where it is known.
        work: side -> what it did and the seconds that it took, in order.
    """

    losses: Sequence[tuple[float, float]]
    dense: float | None
    work: Mapping[Side, Sequence[tuple[str, float]]]

    @classmethod
    def of(cls, comparison: Comparison) -> Headline | None:
        """From a comparison; None while not everything is trained."""
        rows = [(row.baseline, row.finetuned, row.share) for row in comparison.rows]
        budgets = [next((b.loss for b in row.budgets if b.share == row.share), None) for row in comparison.rows]
        losses = [
            (alone.loss, ours.loss if charged is None else charged)
            for (alone, ours, _), charged in zip(rows, budgets, strict=True)
            if alone and ours
        ]
        if not comparison.ledger.rows or not losses:
            return None
        entries = comparison.ledger.rows
        work = {
            side: [(WORDS.get(e.work, e.work), e.seconds) for e in entries if e.side in (side, "both")]
            for side in SIDES
        }
        untouched = comparison.dense.untouched
        return cls(losses, untouched.loss if untouched else None, work)

    @property
    def ratio(self) -> float:
        """Work of the baselines divided by that of the composed models."""
        spent = {side: sum(seconds for _, seconds in self.work[side]) for side in SIDES}
        return spent["baseline"] / spent["composed"]


def draw(headline: Headline, output: Path) -> None:
    """Write the picture, as PNG or SVG by suffix."""
    with canvas.style():
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        _losses(left, headline)
        _work(right, headline)
    canvas.save(figure, output)


def _losses(axes: Axes, headline: Headline) -> None:
    """A pair of dots for each model, the base model as a line."""
    for i, (alone, ours) in enumerate(headline.losses):
        axes.plot([i, i], [alone, ours], color=INK, linewidth=0.8, alpha=0.5, zorder=1)
        axes.plot(i, alone, "o", color=PALETTE[1], zorder=2)
        axes.plot(i, ours, "o", color=PALETTE[0], zorder=3)
    handles = [Line2D([], [], marker="o", linestyle="", color=PALETTE[k]) for k in (1, 0)]
    labels = ["baseline: trained separately", "composed"]
    if headline.dense is not None:
        axes.axhline(headline.dense, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        handles.append(Line2D([], [], color=INK, linewidth=1, linestyle=(0, (1, 2))))
        labels.append("the dense model")
    top = max(loss for pair in headline.losses for loss in pair)
    low = min([headline.dense or top, *(loss for pair in headline.losses for loss in pair)])
    axes.set_ylim(low - 0.08 * (top - low), top + 0.55 * (top - low))
    reached = sum(ours <= alone for alone, ours in headline.losses)
    axes.set_title(f"{reached} of {len(headline.losses)} composed models: loss at or below the baseline's", fontsize=9)
    axes.legend(handles, labels, fontsize=8, loc="upper left", ncols=1)
    axes.set_xticks(range(len(headline.losses)))
    axes.set_xlabel("configuration")
    axes.set_ylabel("validation loss")


def _work(axes: Axes, headline: Headline) -> None:
    """One bar for each side, cut into kinds of work."""
    totals = {side: sum(seconds for _, seconds in headline.work[side]) for side in SIDES}
    longest = max(totals.values())
    for y, side in enumerate(reversed(SIDES)):
        start = 0.0
        for k, (what, seconds) in enumerate(headline.work[side]):
            colour = PALETTE[0] if side == "composed" else PALETTE[1]
            axes.barh(
                y, seconds, left=start, color=colour, alpha=(0.95, 0.75, 0.9)[k % 3], edgecolor="white", height=0.5
            )
            if seconds > ROOM * longest:
                text = what.replace(" ", "\n", 1) if seconds < 0.35 * longest else what
                axes.text(start + seconds / 2, y, text, ha="center", va="center", fontsize=6.5, color="white")
            start += seconds
        axes.text(start + 0.01 * longest, y, f"{start:.0f} s", va="center", fontsize=9)
    axes.set_yticks(range(len(SIDES)), [side if side == "composed" else "baselines" for side in reversed(SIDES)])
    axes.set_xlim(0, 1.12 * longest)
    axes.set_xlabel("all work, searches included (s)")
    ratio = headline.ratio
    said = f"{ratio:.1f}x less work" if ratio >= 1 else f"{1 / ratio:.1f}x more work"
    axes.set_title(f"composing {len(headline.losses)} models: {said}", fontsize=9)
    axes.grid(visible=False, axis="y")
