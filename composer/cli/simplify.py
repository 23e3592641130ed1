"""The command that gives a model simpler parts: simplify."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from . import tables
from .format import number
from .options import COMMON, DATA, MACHINE, Common, Data, Machine
from .parameters import Force, Output
from .session import session
from .speed import timed
from .tables import Sheet, Shown
from .training_options import TRAINING, Training

if TYPE_CHECKING:
    from composer.steps.outcome import Outcome


def simplify(
    model: Annotated[str, Parameter("MODEL", help="Model folder: dense, masked or shrunk.")],
    /,
    *,
    norm: Annotated[Literal["no-norm"] | None, Parameter(help="Norms become a scale and a shift.")] = None,
    activation: Annotated[Literal["relu"] | None, Parameter(help="In place of what the configuration names.")] = None,
    output: Output = None,
    training: Training = TRAINING,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Give a model simpler parts, and measure what that brings.

    First in closed form: every norm becomes the scale and shift nearest to
    it, and projections are refitted behind it and behind the new activation.
    Then the model learns for --steps (0: no step), half of its loss being the
    answers that it gave before. Zeros are held. Scales and shifts that only
    linear layers read are folded into them. Loss, metric and time are
    measured before and after, here.

    Example

        compose simplify models/base --activation relu --data sst2 --steps 0
        compose simplify models/2 --norm no-norm --activation relu --data sst2
    """
    from composer.steps.simplify import simplify

    steps = 0 if training.steps == 0 else None  # the recipe knows no training without a step
    if steps == 0:
        training = replace(training, steps=None)
    with session(common, data, machine, training) as (recipe, console):
        done = simplify(
            recipe,
            model,
            norm=norm,
            activation=activation,
            steps=steps,
            output=output,
            force=force,
            progress=console.progress,
        )
        console.show(done, shown(done))


def shown(done: Outcome) -> Shown:
    """Figures before and after, times, and where the folder is."""
    made = done.summary
    before = made["before"]
    sheet = Sheet(
        "What it costs", [""], ["loss", *before["metrics"]], f"{before['examples']} examples of {before['split']}"
    )
    sheet.add_row("before", *_figures(before))
    sheet.add_row("replaced, no step", *_figures(made["replaced"]))
    if made["steps"]:
        sheet.add_row(f"{made['steps']:,} steps", *_figures(made["after"]))
    yield sheet
    yield from timed(made["speed"])
    if made["norms"]:
        folded, count = len(made["folded"]), len(made["norms"])
        worst = max(made["norms"], key=made["norms"].get)
        yield (
            f"{count} norms are a scale and a shift, {folded} of them folded into the layers that read them; "
            f"farthest from its norm: {worst} ({made['norms'][worst]:.1%} of the variance)".replace("%", " %")
        )
    yield from tables.tuned_model(done)


def _figures(of: Mapping[str, Any]) -> list[str]:
    return [number(of["loss"]), *(number(value) for value in of["metrics"].values())]
