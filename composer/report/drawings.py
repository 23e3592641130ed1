"""The figures of a report as inline SVG with captions, and with words for a screen reader."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..scheme.graph import Scheme
from ..scheme.layout import Layout
from . import costs, graph, phases, plots
from .curves import Curve, Point
from .kept import Stack, kept_figure, said
from .kit import canvas
from .kit.components import Figure, Table, amount, number, seconds
from .records import Comparison


def curve_figures(comparison: Comparison, runs: Mapping[str, Curve]) -> list[Table | Figure]:
    """A panel per configuration against steps, then all runs against seconds."""
    untouched, tuned = comparison.dense.untouched, comparison.dense.finetuned
    dense, which = (tuned.loss, "fine-tuned") if tuned else (untouched.loss if untouched else None, "untouched")
    numbers = sorted({int(name.split("-")[1]) for name in runs if _whole(name) and name != "dense"})
    composed = {**_untrained(comparison), **runs}
    panels = [plots.Panel(i, composed.get(f"model-{i}"), runs.get(f"baseline-{i}")) for i in numbers]
    svgs = []
    for panel in panels:
        figure = plots.comparison_figure([panel], dense=amount(dense))
        svgs.append(canvas.inline(figure, f"panel{panel.configuration}", _say(panel)))
    caption = "Validation loss against model-level steps (each panel has a loss axis of its own)."
    if amount(dense) is not None:
        caption += f" Dotted: the dense model, {which}, at {number(dense, 3)} nats."
    shown = [runs[name] for name in runs if _whole(name)]
    figures: list[Table | Figure] = [Figure("steps", caption, svgs)] if svgs else []
    if shown:
        against = canvas.inline(
            plots.loss_figure(shown, x=("train_seconds",)), "seconds", "Loss of every run against training seconds"
        )
        text = "The same runs against seconds of training (measuring excluded). Thin: training loss."
        figures.append(Figure("against-seconds", text, [against]))
    return figures


def _untrained(comparison: Comparison) -> dict[str, Curve]:
    """Composed models without any training of their own, by name: one point, where they stand."""
    rows = [(row.configuration, row.finetuned) for row in comparison.rows]
    points = {i: Point(0, None, run.loss, 0.0) for i, run in rows if run is not None and run.steps == 0}
    return {f"model-{i}": Curve(f"model-{i}", (point,)) for i, point in points.items()}


def _whole(name: str) -> bool:
    """A run over the whole budget: no suffix after the configuration's number."""
    return re.fullmatch(r"dense|(model|baseline)-\d+", name) is not None


def _say(panel: plots.Panel) -> str:
    """What a screen reader says for a panel: where each side starts and ends."""
    text = [f"Configuration {panel.configuration}, validation loss in nats."]
    for side, curve in (("Composed", panel.composed), ("Baseline", panel.baseline)):
        losses = curve.line("valid_loss", "step")[1] if curve else []
        if losses:
            text.append(f"{side}: from {number(losses[0], 3)} to {number(losses[-1], 3)}.")
    return " ".join(text)


def cost_figures(comparison: Comparison) -> list[Table | Figure]:
    """Work against the number of configurations, and quality against work."""
    ledger = comparison.ledger
    figures: list[Table | Figure] = []
    if ledger.step_seconds is None:
        return figures
    if ledger.growth:
        caption = (
            "All work of both sides for the first 1, 2, … configurations, until the baseline's final loss; where the "
            "lines cross, composing begins to pay. Masks, searches and the joint phase count in full from the first on."
        )
        said = [
            f"{k.configurations}: baseline {seconds(k.baseline.seconds)}, composed {seconds(k.composed.seconds)}."
            for k in ledger.growth
        ]
        label = " ".join(["All work against the number of configurations.", *said])
        figures.append(Figure("growth", caption, [canvas.inline(costs.growth_figure(ledger), "growth", label)]))
    if ledger.lines:
        caption = (
            "Mean validation loss of the first N configurations against all work for them. Composed: masks, blocks, "
            "joint steps where there are some, then each model's finish; baseline: masks, then N models side by side."
        )
        label = "Mean validation loss against all work, for several numbers of configurations"
        figures.append(Figure("quality", caption, [canvas.inline(costs.quality_figure(ledger), "quality", label)]))
    return figures


def joint_figure(joint: Sequence[Curve]) -> Figure:
    """The joint phase, per configuration."""
    caption = (
        "Each step draws one configuration and teaches what all of them share: the validation loss of every "
        "configuration as it went, composed from the shared weights as they were."
    )
    losses = {curve.configuration: curve.line("valid_loss", "step")[1] for curve in joint}
    said = [f"{i}: from {number(some[0], 3)} to {number(some[-1], 3)}." for i, some in losses.items() if some]
    label = " ".join(["Validation loss by configuration against joint steps.", *said])
    return Figure("joint-phase", caption, [canvas.inline(phases.joint_figure(joint), "joint", label)])


def block_figure(blocks: Sequence[Curve]) -> Figure:
    """The block phase, per level."""
    caption = (
        "How far the blocks' outputs are from the base model's, relative to what the base model's block "
        "adds: 0 is the same output. Line: the median block; band: from the 10th to the 90th per cent. "
        "A block that stopped early counts with its best."
    )
    label = "Median relative error of the blocks of each level against steps"
    return Figure("block-errors", caption, [canvas.inline(phases.block_figure(blocks), "blocks", label)])


def graph_figure(scheme: Scheme, layout: Layout | None) -> Figure:
    """The scheme's graph."""
    caption = "Which blocks each configuration is composed of; colour shows what is shared."
    n = len(scheme.nodes)
    label = f"Graph of the scheme: {len(scheme.roots)} configurations, {n} nodes"
    svg = canvas.inline(graph.scheme_figure(scheme, layout), "graph", label, scale=1.5)
    return Figure("scheme", caption, [svg], wide=True)


def kept_figures(kept: Mapping[int, Sequence[Stack]]) -> list[Table | Figure]:
    """What each configuration keeps of its heads and neurons."""
    figures: list[Table | Figure] = []
    for i, stacks in kept.items():
        text = f"Configuration {i}: {said(stacks)}."
        svg = canvas.inline(kept_figure(stacks), f"kept{i}", text)
        figures.append(Figure(f"kept-{i}", text, [svg], wide=True))
    return figures
