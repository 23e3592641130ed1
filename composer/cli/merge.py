"""The command that puts an adapter into a pruned model: merge."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from .format import number
from .options import COMMON, DATA, Common, Data
from .parameters import Force, Output
from .session import session
from .tables import Shown, finished


def merge(
    adapter: Annotated[str, Parameter("ADAPTER", help="A folder that peft has saved (LoRA or DoRA).")],
    /,
    *,
    into: Annotated[str, Parameter(help="Model folder: masked, shrunk or dense.")],
    output: Output = None,
    data: Data = DATA,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Merge an adapter of peft into a model.

    Merged as usual an adapter fills a masked model's zeros. Here they are set
    again, and counted; with --data the loss is measured before, with the
    adapter as it is, and after. An adapter of another base model is refused.
    Needs the extra peft.

    Example

        compose merge my-lora --into models/2 --data sst2
        compose merge my-lora --into models/2-shrunk -o mine
    """
    from composer.steps.merge import merge

    with session(common, data) as (recipe, console):
        outcome = merge(recipe, adapter, into, output=output, force=force, progress=console.progress)
        console.show(outcome, shown(outcome.summary, finished(outcome, f"{adapter} merged into {into}")))


def shown(made: dict[str, Any], line: str) -> Shown:
    """Zeros and loss, before and after."""
    zeros, loss = made["zeros"], made["loss"]
    yield (
        f"zeros: {zeros['before']:,} before, {zeros['adapter']:,} with the adapter as it is, "
        f"{zeros['merged']:,} merged ({zeros['filled']:,} set again)"
    )
    if loss:
        yield (
            f"validation loss: {number(loss['before'])} before, {number(loss['adapter'])} with the adapter as it is, "
            f"{number(loss['merged'])} merged"
        )
    else:
        yield "no loss was measured: name data with --data"
    yield line
