"""Commands that do everything: download, run and demo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from . import tables
from .choose import WISHES, Unstructured, Wishes
from .compared import whole_run
from .options import COMMON, DATA, GENERATING, MACHINE, TALK, Common, Data, Generating, Machine, Talk
from .parameters import BlockLevels, DeadColumns, Force, Model, RunCriterion, Sweep, levels
from .session import epochs_win, merge, session, talking
from .training_options import COMPARING, RUN_BLOCK_TRAINING, TRAINING, Comparing, RunBlockTraining, Training

if TYPE_CHECKING:
    from composer.recipe import Recipe

    from .console import Console

Classic = Annotated[
    bool,
    Parameter(negative="", help="The original recipe: l1, each module distilled by itself [no]."),
]
DryRun = Annotated[bool, Parameter(help="Print the plan and do nothing.")]


def download(
    model: Annotated[str, Parameter("MODEL", help="t5, distilbert, or a hub id such as google-t5/t5-small.")],
    /,
    *,
    output: Annotated[Path, Parameter(["-o", "--output"], help="Folder [models/base].")] = Path("models/base"),
    revision: Annotated[str | None, Parameter(help="Branch, tag or commit [main].")] = None,
    force: Force = False,
    talk: Talk = TALK,
) -> None:
    """Bring a base model from the hub into a folder.

    Model and tokenizer, as one ordinary Hugging Face folder; weights as
    safetensors only.

    Example

        compose download t5
        compose download google-t5/t5-small -o models/base
    """
    from composer.models import hub
    from composer.steps.outcome import Outcome

    with talking(talk) as console:
        got = hub.download(model, output, revision=revision, force=force, quiet=talk.quiet or talk.json)
        summary = {"repo": got.repo, "commit": got.commit, "bytes": got.bytes, "files": list(got.files)}
        outcome = Outcome(got.folder, got.fetched, summary)
        console.show(outcome, tables.downloaded(outcome))


def run(
    file: Annotated[Path | None, Parameter("RECIPE", help="The recipe [compose.yaml].")] = None,
    /,
    *,
    output: Annotated[
        Path | None, Parameter(["-o", "--output"], help="Folder of everything [the recipe's name].")
    ] = None,
    dry_run: DryRun = False,
    model: Model = None,
    config: Annotated[
        Path | None, Parameter(["-c", "--config"], help="Take these configurations [made from the rates].")
    ] = None,
    criterion: RunCriterion = None,
    dead_columns: DeadColumns = None,
    sweep: Sweep = None,
    classic: Classic = False,
    shrink: Annotated[
        bool | None, Parameter(help="At the end shrink every model, evaluate and time it beside the base model [no].")
    ] = None,
    rates: Generating = GENERATING,
    wishes: Wishes = WISHES,
    unstructured: Unstructured = None,
    block_levels: BlockLevels = None,
    training: Training = TRAINING,
    blocks: RunBlockTraining = RUN_BLOCK_TRAINING,
    comparing: Comparing = COMPARING,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    common: Common = COMMON,
) -> None:
    """Do all of it from one recipe, skipping what is done.

    Configurations, scheme, pruning, block-level and model-level fine-tuning,
    evaluation, comparison and report. A run that was killed goes on where it
    was when it is started again. With a wish (--speedup 1.5 2 3) instead of
    rates it makes a family of small models, and trains no baselines. With a
    model no recipe is needed.

    Example

        compose run --dry-run
        compose run -m models/base --data sst2 --speedup 1.5 2 3
        compose run t5.yaml -o t5-run
        compose run t5.yaml --steps 200 --seed 1
    """
    check_rates(config, rates)
    source = recipe_file(file, common.recipe, said=model is not None)
    common = replace(common, recipe=source)
    flags = (rates, wishes, training, blocks, comparing, data, machine)
    fields: dict[str, Any] = {"folder": output, "model": model, "config": config, "criterion": criterion}
    fields |= {"dead_columns": dead_columns, "sweep": sweep, "shrink": shrink, "block_levels": levels(block_levels)}
    fields["unstructured"] = unstructured
    from composer.steps.run import with_best

    with session(common, *flags, **classic_beneath(fields) if classic else fields) as (recipe, console):
        if "folder" not in recipe.model_fields_set:
            recipe = recipe.model_copy(update={"folder": Path(source.stem if source else "compose")})
        _run(with_best(recipe), console, dry_run=dry_run, force=force)


def demo(
    *,
    output: Annotated[Path, Parameter(["-o", "--output"], help="Folder of everything [demo-run].")] = Path("demo-run"),
    dry_run: DryRun = False,
    criterion: RunCriterion = None,
    dead_columns: DeadColumns = None,
    sweep: Sweep = None,
    classic: Classic = False,
    rates: Generating = GENERATING,
    block_levels: BlockLevels = None,
    training: Training = TRAINING,
    blocks: RunBlockTraining = RUN_BLOCK_TRAINING,
    comparing: Comparing = COMPARING,
    data: Data = DATA,
    machine: Machine = MACHINE,
    force: Force = False,
    talk: Talk = TALK,
) -> None:
    """Do all of it on the embedded model and corpus.

    A tiny T5 and a small made-up translation corpus: no download, under three
    minutes on two cores. Twelve configurations; where nothing is said here, it
    is as in composer/demo/recipe.yaml. In the end: summary.png.

    Example

        compose demo
        compose demo -o my-demo --steps 100
    """
    from composer.steps.run import demo_recipe

    with talking(talk) as console:
        fields: dict[str, Any] = {"criterion": criterion, "block_levels": levels(block_levels)}
        fields |= {"dead_columns": dead_columns, "sweep": sweep}
        fields = classic_beneath(fields) if classic else fields
        given = merge(rates, training, blocks, comparing, data, machine, **fields)
        _run(epochs_win(demo_recipe(output, given), given), console, dry_run=dry_run, force=force)


def classic_beneath(fields: dict[str, Any]) -> dict[str, Any]:
    """The original recipe beneath what was given as flags."""
    from composer.steps.run import CLASSIC

    said = {name: value for name, value in fields.items() if value is not None}
    return {**fields, **CLASSIC, **said}


def _run(recipe: Recipe, console: Console, *, dry_run: bool, force: bool) -> None:
    from composer.steps.run import plan, run

    if dry_run:
        steps = plan(recipe)
        console.show({"folder": recipe.folder, "plan": steps}, tables.plan(steps, recipe.folder))
        return
    outcome = run(recipe, force=force, progress=console.progress)
    console.show(outcome, whole_run(outcome))


def check_rates(config: Path | None, rates: Generating) -> None:
    """Configurations are given, or made from rates."""
    from composer.errors import RecipeError

    given = [name for name, value in rates.given().items() if config and value is not None]
    if given:
        raise RecipeError(f"--{name.replace('_', '-')}: not together with -c/--config" for name in given)


def recipe_file(given: Path | None, flag: Path | None, *, said: bool = False) -> Path | None:
    """The file that ``run`` takes its recipe from; None where there is none and what to prune is ``said`` as options.

    Raises:
        RecipeError: named twice, or not named and no ``compose.yaml`` here.
    """
    from composer.errors import RecipeError
    from composer.recipe import RECIPE_FILE

    if given and flag:
        raise RecipeError(f"--recipe: got {flag} and {given}; allowed: one recipe")
    if given or flag or Path(RECIPE_FILE).is_file():
        return given or flag or Path(RECIPE_FILE)
    if said:
        return None
    raise RecipeError(
        f"{RECIPE_FILE}: no such file; name a recipe (compose run my.yaml), write one, of two lines at least, such as "
        "'model: models/base' and 'data: multi30k', or say both as options: -m models/base --data multi30k"
    )
