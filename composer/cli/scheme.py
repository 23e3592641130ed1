"""Commands that plan: generate-config, generate-scheme and show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from . import tables
from .options import COMMON, GENERATING, Common, Generating
from .parameters import BlockLevels, Config, Force, Model, Output, Seed, levels
from .session import session


def generate_config(
    *,
    model: Model = None,
    rates: Generating = GENERATING,
    seed: Seed = None,
    output: Output = None,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Write pruning configurations from lists of rates.

    Configuration i takes the i-th rate of each list; a list of one value is
    repeated. The result is conf.json, which may also be written or edited by
    hand.

    Example

        compose generate-config -m models/base --attention 0.25 0.5 --linear 0.3 0.5
        compose generate-config -m models/base --attention 0 0.5 --linear 0.3 0.6 --grid
        compose generate-config -m models/base --random 8 --seed 1 --targets "encoder.*"
    """
    from composer.steps.configure import generate_config

    with session(common, rates, model=model, seed=seed) as (recipe, console):
        outcome = generate_config(recipe, output=output, force=force)
        console.show(outcome, tables.configurations(outcome))


def generate_scheme(
    *,
    config: Config = None,
    model: Model = None,
    block_levels: BlockLevels = None,
    output: Output = None,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Plan which pieces the configurations share.

    Writes the graph of all configurations, conf_prune.json, and shows per
    level how many blocks are needed, how many uses they have, and what
    sharing saves.

    Example

        compose generate-scheme
        compose generate-scheme -c conf.json -o conf_prune.json --block-levels module,sublayer,layer
    """
    from composer.steps.configure import generate_scheme

    fields = {"config": config, "model": model, "block_levels": levels(block_levels)}
    with session(common, **fields) as (recipe, console):
        outcome = generate_scheme(recipe, config=recipe.config, output=output, force=force)
        console.show(outcome, tables.scheme(outcome))


def show(
    what: Annotated[
        str | None, Parameter("SCHEME-OR-MODEL", help="A scheme or a model folder [conf_prune.json].")
    ] = None,
    /,
    *,
    output: Annotated[
        Path | None, Parameter(["-o", "--output"], help="Picture, .png or .svg [scheme.png, MODEL-kept.png].")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Show a scheme or a model as a table and a picture.

    A scheme: its nodes, who shares them, and a picture of the graph. A model:
    parameters, zeros and bytes, in all and per target, and a picture of the heads
    and neurons that each layer keeps, masked or shrunk.

    Example

        compose show
        compose show conf_prune.json -o scheme.svg
        compose show models/2
    """
    from composer.models.hub import names_a_repository
    from composer.steps.show import show_model, show_scheme

    with session(common) as (recipe, console):
        path = Path(what) if what else recipe.folder / "conf_prune.json"
        elsewhere = what == "demo" or (what and path.suffix != ".json" and names_a_repository(what))
        if path.is_dir() or (elsewhere and not path.exists()):
            outcome = show_model(recipe, path, picture=output)
            console.show(outcome, tables.model(outcome))
        else:
            outcome = show_scheme(recipe, path, picture=output or path.with_name("scheme.png"))
            console.show(outcome, tables.graph(outcome))
