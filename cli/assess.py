"""The command that tells what can go: assess."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from . import tables
from .format import number, percent
from .options import COMMON, DATA, Common, Data, Force, Seed, Words
from .session import session
from .tables import Shown

DEFAULT = Path("assessment")


def assess(
    model: Annotated[str, Parameter("MODEL", help="Model folder, or 'demo'.")],
    /,
    *,
    output: Annotated[Path, Parameter(["-o", "--output"], help="Folder of everything [assessment].")] = DEFAULT,
    rates: Annotated[
        Words | None, Parameter(metavar="RATE...", help="Rates, or 0:0.9:0.1 [0.25 0.5 0.75 0.9].")
    ] = None,
    criteria: Annotated[
        Words | None, Parameter(help="What makes a unit unimportant; the first one counts [l1].")
    ] = None,
    sparsity: Annotated[float, Parameter(help="Overall sparsity wished of the proposal [0.5].")] = 0.5,
    parts: Annotated[Words | None, Parameter(help="Of weights, sensitivity, proposal [all].")] = None,
    data: Data = DATA,
    seed: Seed = None,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Show what can go from a model, and what it costs.

    Weights, the loss when a single target or head is pruned, with and without
    repair, and a proposal of rates as conf.json. A repeated command goes on
    where it was.

    Example

        compose assess models/base --data multi30k
        compose assess models/base --data multi30k --sparsity 0.6 -o assessment
    """
    from composer.assess.assess import assess as work
    from composer.assess.settings import CRITERIA_SHOWN, PARTS, RATES, Settings, parse_rates

    settings = Settings(
        rates=parse_rates(rates) if rates else RATES,
        criteria=tuple(criteria or CRITERIA_SHOWN),
        sparsity=sparsity,
        parts=tuple(parts or PARTS),
    )
    with session(common, data, model=model, seed=seed) as (recipe, console):
        outcome = work(recipe, settings, output, force=force, progress=console.progress)
        console.show(outcome, _shown(outcome.summary))


def _shown(told: dict) -> Shown:  # type: ignore[type-arg]
    if proposal := told.get("proposal"):
        sheet = tables.Sheet("Proposal", ["model"], ["sparsity", "loss"])
        sheet.add_row("dense", percent(0.0), number(proposal["dense_loss"]))
        sheet.add_row("proposal", percent(proposal["reached"]), number(proposal["measured_loss"]))
        sheet.add_row("uniform rate", percent(proposal["reached"]), number(proposal["uniform_loss"]))
        yield sheet
    yield f"page: {told['page']}"
