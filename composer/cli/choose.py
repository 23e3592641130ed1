"""The command that turns wishes into configurations: choose."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Group, Parameter

from . import tables
from .format import number, percent
from .options import COMMON, DATA, Common, Data, Device, Force, Model, Output, Rates, Seed, Whole
from .session import session
from .tables import Shown

_WISHES = Group("Wishes", sort_key=2)


def choose(
    *,
    model: Model = None,
    keep_macs: Annotated[
        Rates | None, Parameter(group=_WISHES, metavar="PART...", help="Multiplications of the layers that may stay.")
    ] = None,
    keep_parameters: Annotated[
        Rates | None, Parameter(group=_WISHES, metavar="PART...", help="Parameters of the model that may stay.")
    ] = None,
    measure: Annotated[
        bool, Parameter(negative="--no-measure", help="Measure each choice, and a uniform one of equal size [yes].")
    ] = True,
    calibration_size: Annotated[Whole | None, Parameter(help="Training examples that are looked at [2048].")] = None,
    device: Device = None,
    data: Data = DATA,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Choose what each layer keeps, for wished sizes.

    Each wish becomes one configuration of conf.json, in heads and neurons. One pass over training
    examples tells what every attention and feed-forward costs the loss at
    every width; an integer program takes the widths that cost least. The other
    commands go on from conf.json. Several kinds of wishes count together.

    Example

        compose choose -m models/base --data sst2 --keep-macs 0.7 0.5 0.3
        compose choose -m models/base --data sst2 --keep-macs 0.5 --keep-parameters 0.6
    """
    from composer.steps.choose import choose as work

    lists = {"macs": keep_macs, "parameters": keep_parameters}
    wishes = {name: values for name, values in lists.items() if values is not None}
    machine = {"calibration_size": calibration_size, "device": device}
    with session(common, data, model=model, seed=seed, **machine) as (recipe, console):
        outcome = work(recipe, wishes, output=output, measure=measure, force=force, progress=console.progress)
        console.show(outcome, _shown(outcome.summary, str(outcome.output)))


def _shown(told: Any, output: str) -> Shown:
    measured = told["dense"] is not None
    metric = next((name for name in told["dense"] or () if name != "loss"), "")
    figures = ["macs", "parameters", *(["loss", metric, "uniform", f"uniform {metric}"] if measured else [])]
    sheet = tables.Sheet("Choices", ["configuration"], figures, _CAPTION if measured else "")
    if measured:
        sheet.add_row("dense", percent(1.0), percent(1.0), number(told["dense"]["loss"]), number(told["dense"][metric]))
    for i, row in enumerate(told["choices"]):
        left = [percent(row["left"][name]) for name in ("macs", "parameters")]
        both = [row["measured"], row["uniform_measured"]] if measured else []
        sheet.add_row(str(i), *left, *(number(one[name]) for one in both for name in ("loss", metric)))
    yield sheet
    yield _kept(told["choices"])
    yield f"{output}: {len(told['choices'])} configurations; go on with compose generate-scheme"


_CAPTION = "Pruned and repaired in closed form, no training step; uniform: the same part of every layer, equal size."


def _kept(choices: Any) -> tables.Sheet:
    sheet = tables.Sheet("Heads and neurons kept", ["where"], [str(i) for i in range(len(choices))])
    for path in choices[0]["kept"]:
        sheet.add_row(path, *(str(choice["kept"][path]) for choice in choices))
    return sheet
