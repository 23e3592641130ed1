"""The section about the proposal: rates per target, what they cost, and the command to go on with."""

from __future__ import annotations

from collections.abc import Sequence

from ...report.kit.components import Cell, Column, Figure, Section, Table, Tile, amount, dig, number, percent
from ..contents import ProposalFile
from . import grids
from .parts import Drawing, Part, figure, rise, table, unit_of


def part(content: ProposalFile, targets: Sequence[str]) -> Part:
    """The section of a ``proposal.json``; ``targets`` are all of the model's, as far as they are known."""
    rates = {path: float(content["rates"].get(path, 0.0)) for path in targets or content["rates"]}
    picture = grids.grid_figure([grids.by_layer("", rates)], grids.percents("rate (% of its heads or weights removed)"))
    drawing = Drawing(
        "proposal", picture, "Proposed rate of every target, by layer and role", "Numbers in the table below."
    )
    repaired = " What is left was refitted." if content.get("repair") else ""
    lead = (
        f"Wished: {percent(content['wished'])} of the target weights. The greedy choice on the sensitivities reaches "
        f"{percent(content['reached'], 2)}.{repaired} Predicted is the sum of the rises of the single targets, which "
        "holds as long as what they break does not add up."
    )
    caption = "The proposed rate of every target: layers from left to right, what stands in them from top to bottom."
    columns = [Column("target", numeric=False), Column("rate")]
    rows: list[list[str | Cell]] = [[path, percent(rate, 2)] for path, rate in rates.items()]
    parts: list[Table | Figure] = [
        loss_table(content),
        figure("proposal-rates", caption, [drawing]),
        table("proposal-targets", f"All {len(rows)} rates as a table", columns, rows, folded=True),
    ]
    return Part(Section("proposal", "Proposal", lead, parts), {"proposal": picture})


def loss_table(content: ProposalFile) -> Table:
    """Predicted and measured."""
    dense, predicted = dense_loss(content), amount(content.get("predicted_rise"))
    foretold = None if dense is None or predicted is None else dense + predicted
    named = {
        "dense": dense,
        "proposal, predicted": foretold,
        "proposal, measured": amount(content.get("measured_loss")),
        "proposal, measured without repair": amount(dig(content, "measured", "pruned"))
        if content.get("repair")
        else None,
        "one rate for all targets, measured": amount(content.get("uniform_loss")),
    }
    columns = [Column("model", numeric=False), Column("loss", unit_of(content)), Column("rise", unit_of(content))]
    rows = [[name, number(loss, 3), rise(loss, dense)] for name, loss in named.items() if loss is not None]
    if dense is None and predicted is not None:
        rows.append(["proposal, predicted", number(None), rise(predicted, 0.0)])
    return table("proposal-losses", f"All at a sparsity of {percent(content['reached'])}.", columns, rows)


def dense_loss(content: ProposalFile) -> float | None:
    """The dense model's loss."""
    return amount(content.get("dense_loss"))


def tiles(content: ProposalFile) -> list[Tile]:
    """What the proposal comes to, at a glance."""
    dense, unit = dense_loss(content), unit_of(content)
    tiles = [Tile(percent(content["reached"]), "of the target weights go in the proposal")]
    measured, uniform = amount(content.get("measured_loss")), amount(content.get("uniform_loss"))
    if measured is not None and dense is not None:
        tiles.append(Tile(rise(measured, dense), f"{unit}: measured rise of the loss, from {number(dense, 3)}"))
    elif amount(content.get("predicted_rise")) is not None:
        tiles.append(Tile(rise(content["predicted_rise"], 0.0), f"{unit}: predicted rise of the loss"))
    if uniform is not None and dense is not None:
        tiles.append(Tile(rise(uniform, dense), f"{unit}: rise with one rate for all targets, equally sparse"))
    return tiles
