"""The command that compares what was removed: masks."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .options import COMMON, Common
from .overlaps import overlaps
from .parameters import Output
from .session import session


def masks(
    models: Annotated[list[str], Parameter("MODEL", help="Pruned model folders, or libraries (modules/pruned).")],
    /,
    *,
    output: Output = None,
    common: Common = COMMON,
) -> None:
    """Compare what two or more pruned models removed.

    Jaccard of the sets of removed weights (1: the same, 0: nothing in common)
    for every target, every layer and in all, beside that of random sets as
    large; where they differ most; a picture of the masks. Of libraries, the
    variants that both hold are compared: the same targets at the same rates.
    Written to masks/: masks.html, JSON, CSV and pictures.

    Example

        compose masks models/0 models/0-finetuned
        compose masks wanda/modules/pruned obs/modules/pruned -o masks
    """
    from composer.assess.masks.page import assess_masks

    with session(common) as (recipe, console):
        outcome = assess_masks(models, output or recipe.folder / "masks", progress=console.progress)
        console.show(outcome, overlaps(outcome))
