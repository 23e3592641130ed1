"""Commands that make models: prune, finetune and build-model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

import composer

from . import tables
from .options import COMMON, DATA, MACHINE, Common, Data, Machine
from .parameters import Criterion, DeadColumns, Every, Force, Model, Output, SchemeFile, Sweep, Which, Whole
from .session import session
from .training_options import TEACHING, TRAINING, Teaching, Training

if TYPE_CHECKING:
    from composer.recipe import Recipe
    from composer.run_folder import RunFolder
    from composer.steps.outcome import Outcome

    from .console import Console


def prune(
    *,
    model: Model = None,
    scheme: SchemeFile = None,
    criterion: Criterion = None,
    steps: Annotated[Whole | None, Parameter(help="movement: steps in which its scores are learnt [100].")] = None,
    dead_columns: DeadColumns = None,
    output: Output = None,
    teaching: Teaching = TEACHING,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Prune every variant once, into a library.

    Every distinct pair of a target and a rate is pruned once, however many
    configurations use it. The library is modules/pruned. The criterion
    movement fine-tunes a copy of the model for --steps, once for all rates;
    a teacher is one of that run.

    Example

        compose prune
        compose prune -s conf_prune.json --criterion l1 -o modules/pruned
        compose prune --criterion movement --steps 100 --data sst2
    """
    from composer.steps.prune import prune

    fields: dict[str, Any] = {"model": model, "criterion": criterion, "dead_columns": dead_columns}
    fields["movement"] = {"steps": steps}
    with session(common, data, machine, teaching, **fields) as (recipe, console):
        outcome = prune(recipe, scheme=scheme, output=output, force=force, progress=console.progress)
        console.show(outcome, tables.pruned(outcome))


def finetune(
    folder: Annotated[str | None, Parameter("MODEL", help="Instead of a configuration: any model folder.")] = None,
    /,
    *,
    level: Annotated[Literal["block", "model"] | None, Parameter(help="Shared blocks, or whole models.")] = None,
    densify: Annotated[bool, Parameter(help="MODEL: fill zeros in what is left, towards -m; they learn.")] = False,
    configuration: Which = None,
    every: Every = False,
    baseline: Annotated[bool, Parameter(help="Whole models: start from modules/pruned, as the baseline.")] = False,
    dense: Annotated[bool, Parameter(help="Whole models: fine-tune the untouched base.")] = False,
    model: Model = None,
    scheme: SchemeFile = None,
    modules: Annotated[
        Path | None, Parameter(["-p", "--modules"], help="Library to start from [modules/pruned or finetuned].")
    ] = None,
    criterion: Criterion = None,
    trainer: Annotated[str | None, Parameter(help="Blocks: how they are tuned [distill].")] = None,
    sweep: Sweep = None,
    output: Output = None,
    training: Training = TRAINING,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Fine-tune the shared blocks, or whole models.

    --level block tunes every block of the scheme once, bottom-up, from
    modules/pruned into modules/finetuned. --level model composes a
    configuration from the library and fine-tunes it whole, into
    models/N-finetuned; with --baseline from modules/pruned, into
    models/N-baseline. MODEL is any folder instead: dense, masked (its zeros
    are held) or shrunk; -m then names the teacher, where --teacher does not.

    Example

        compose finetune --level block --data multi30k --steps 100
        compose finetune --level model -n 2 --data multi30k --epochs 1
        compose finetune --level model --all --baseline --data multi30k
        compose finetune models/2-shrunk --densify --data multi30k
    """
    chosen = {"-n/--configuration": configuration is not None, "--all": every, "--baseline": baseline}
    if folder:
        other = {"--dense": dense, "--level block": level == "block", "-s/--scheme": scheme is not None}
        _refuse("MODEL", chosen | other | {"--own": training.own is not None})
        with session(common, data, machine, training, model=model) as (recipe, console):
            _finetune_folder(recipe, console, folder, output=output, densify=densify, force=force)
        return
    _check_level(level, densify)
    for_blocks, kind = level == "block", "dense" if dense else "baseline" if baseline else "composed"
    if for_blocks:
        _refuse("--level block", {**chosen, "--dense": dense, "--epochs": training.epochs is not None})
    elif dense:
        _refuse("--dense", {**chosen, "--own": training.own is not None})
    else:
        _refuse("--level model", {"--own": training.own is not None})
        _check_which(configuration, every, output)
    part = training.for_blocks() if for_blocks else training.given()
    fields = {"model": model, "criterion": criterion, "trainer": trainer, "sweep": sweep, **part}
    with session(common, data, machine, **fields) as (recipe, console):
        shared: dict[str, Any] = {"scheme": scheme, "output": output, "force": force, "progress": console.progress}
        if for_blocks:
            _finetune_blocks(recipe, console, modules, **shared)
            return
        from composer.steps.tune_model import finetune_model

        with composer.open(recipe) as work:
            which = _every(work, scheme) if every else [configuration]
            made = [finetune_model(work, kind, i, modules=modules, **shared) for i in which]  # type: ignore[arg-type]
        _show_each(console, made, every, tables.tuned_model)


def _finetune_folder(recipe: Recipe, console: Console, folder: str, **how: Any) -> None:
    from composer.steps.tune_folder import finetune_folder

    done = finetune_folder(recipe, folder, progress=console.progress, **how)
    console.show(done, tables.tuned_model(done))


def _finetune_blocks(recipe: Recipe, console: Console, pruned: Path | None, **how: Any) -> None:
    from composer.steps.tune_blocks import finetune_blocks

    outcome = finetune_blocks(recipe, pruned=pruned, **how)
    console.show(outcome, tables.tuned_blocks(outcome))


def build_model(
    *,
    configuration: Which = None,
    every: Every = False,
    model: Model = None,
    scheme: SchemeFile = None,
    modules: Annotated[
        Path | None, Parameter(["-p", "--modules"], help="Library to build from [modules/finetuned].")
    ] = None,
    sweep: Sweep = None,
    shrink: Annotated[bool, Parameter(help="Small instead of masked (`compose shrink`), models/N-shrunk.")] = False,
    card_data: Annotated[
        Path | None, Parameter(help="YAML file with fields of the model card, such as license and language.")
    ] = None,
    output: Output = None,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Compose a configuration's model from the library.

    The result is an ordinary Hugging Face folder with tokenizer and model
    card, models/N; with --shrink it is small instead of masked. With --sweep each sublayer's last projection is then
    refitted, in execution order, on the inputs that it really gets; that
    needs the data.

    Example

        compose build-model -n 2
        compose build-model -n 2 --sweep --data multi30k
        compose build-model -n 2 -p modules/pruned -o models/2-untuned
        compose build-model --all
    """
    from composer.steps.build_model import build_model

    _check_which(configuration, every, output)
    with session(common, data, machine, model=model, sweep=sweep, card_data=card_data) as (recipe, console):
        shared: dict[str, Any] = {"scheme": scheme, "modules": modules, "output": output, "force": force}
        shared["shrink"] = "auto" if shrink else None
        shared["progress"] = console.progress
        with composer.open(recipe) as work:
            which = _every(work, scheme) if every else [configuration or 0]
            made = [build_model(work, i, **shared) for i in which]
        _show_each(console, made, every, tables.built)


def _show_each(console: Console, made: Sequence[Outcome], every: bool, lines: tables.Lines) -> None:
    """Show one result, or with ``--all`` the list of all."""
    console.show(list(made) if every else made[0], tables.each(lines(outcome) for outcome in made))


def _every(run: RunFolder, scheme: Path | None) -> Sequence[int]:
    """Numbers of all configurations of the scheme."""
    from composer.steps.show import scheme_size

    return range(scheme_size(scheme or run.conf_prune))


def _refuse(beside: str, given: dict[str, bool]) -> None:
    """Refuse the flags of ``given`` that are set: they mean nothing beside another one."""
    from composer.errors import RecipeError

    problems = [f"{name}: not together with {beside}" for name, is_set in given.items() if is_set]
    if problems:
        raise RecipeError(problems)


def _check_level(level: str | None, densify: bool) -> None:
    """Without a folder a level is needed, and nothing can be densified."""
    from composer.errors import RecipeError

    if level is None:
        raise RecipeError("--level: nothing given; allowed: block, model (see `compose finetune --help`)")
    if densify:
        raise RecipeError("--densify: for a model folder: compose finetune MODEL --densify")


def _check_which(configuration: int | None, every: bool, output: Path | None) -> None:
    """Exactly one of ``-n`` and ``--all``; with ``--all`` every model has its own default folder."""
    from composer.errors import RecipeError

    if not every and configuration is None:
        raise RecipeError("-n/--configuration: nothing given; allowed: a number counted from 0, or --all")
    if every:
        _refuse("--all", {"-n/--configuration": configuration is not None, "-o/--output": output is not None})
