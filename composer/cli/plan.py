"""The command that looks ahead: plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .format import NONE, duration, fraction, percent, plural, size
from .options import COMMON, DATA, GENERATING, MACHINE, Common, Data, Generating, Machine
from .parameters import BlockLevels, Criterion, DeadColumns, Model, Sweep, levels
from .runs import Classic, check_rates, classic_beneath, recipe_file
from .session import session
from .tables import Sheet, Shown
from .training_options import BLOCK_TRAINING, COMPARING, TRAINING, BlockTraining, Comparing, Training

UNITS: Mapping[str, tuple[str, str]] = {
    "gather": ("calibration pass", "calibration passes"),
    "select": ("selection", "selections"),
    "solve": ("solve", "solves"),
    "show": ("pass over the sample", "passes over the sample"),
    "teach": ("teacher batch", "teacher batches"),
    "learn": ("block step", "block steps"),
    "block": ("block", "blocks"),
    "joint": ("joint step", "joint steps"),
    "step": ("step", "steps"),
    "answer": ("pass of the teacher", "passes of the teacher"),
    "compose": ("model", "models"),
    "sweep": ("sweep", "sweeps"),
}
"""What of the work is worth a word."""


def plan(
    file: Annotated[Path | None, Parameter("RECIPE", help="As `compose run RECIPE` [the workspace here].")] = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(["-o", "--output"], help="The folder that is planned for.")] = None,
    time: Annotated[bool, Parameter(help="Time a few real batches; predict seconds, and whether it pays.")] = False,
    share: Annotated[
        float | None,
        Parameter(
            help="Part of the baseline's steps that composed models need [as compared earlier; else 1/4, joint 0]."
        ),
    ] = None,
    model: Model = None,
    config: Annotated[
        Path | None, Parameter(["-c", "--config"], help="Take these configurations [conf.json, or from the rates].")
    ] = None,
    criterion: Criterion = None,
    dead_columns: DeadColumns = None,
    sweep: Sweep = None,
    classic: Classic = False,
    rates: Generating = GENERATING,
    block_levels: BlockLevels = None,
    training: Training = TRAINING,
    blocks: BlockTraining = BLOCK_TRAINING,
    comparing: Comparing = COMPARING,
    data: Data = DATA,
    machine: Machine = MACHINE,
    common: Common = COMMON,
) -> None:
    """Tell beforehand what a run takes and whether it pays.

    Which blocks the configurations need, how many of them are stored already,
    what the rest takes. Nothing is left behind. Without --time no model is
    loaded; with it a few real batches are timed, and the plan says from how
    many configurations on composing pays. Every kind of work is tried two or
    three times through the code that does it: the time is that of the middling
    try, the range that of the quickest and of the slowest (steps that may end
    early counted at their least). What the machine does later is in neither.
    Evaluation, validation of whole models and loading are not counted, on
    either side. After joint tuning of enough steps composed models are taken
    to need no step of their own. How many are enough was measured on a small
    T5, and depends on the baselines' length: as many as one baseline has up
    to 120 steps, one and a half times as many from 300 on.

    Example

        compose plan
        compose plan t5.yaml --time
        compose plan -m models/base --data multi30k --steps 300 --time --share 0.5
    """
    check_rates(config, rates)
    source = recipe_file(file, common.recipe) if file else common.recipe
    flags = (rates, training, blocks, comparing, data, machine)
    fields: dict[str, Any] = {"folder": output, "model": model, "config": config, "criterion": criterion}
    fields |= {"dead_columns": dead_columns, "sweep": sweep, "block_levels": levels(block_levels)}
    fields = classic_beneath(fields) if classic else fields
    with session(replace(common, recipe=source), *flags, **fields) as (recipe, console):
        from composer.forecast.forecast import forecast
        from composer.steps.run import with_best

        recipe = with_best(recipe) if file else recipe  # as `compose run RECIPE` would take it
        if file and "folder" not in recipe.model_fields_set:
            recipe = recipe.model_copy(update={"folder": Path(file.stem)})
        told = forecast(recipe, time=time, share=share, progress=console.progress)
        console.show(told, shown(told))


def shown(told: dict[str, Any]) -> Shown:
    """The plan as tables, and the verdict or how to get one."""
    yield _blocks(told)
    yield _work(told)
    disk, memory = told["disk"], told["memory"]
    parts = [f"{size(disk[name])} of {name}" for name in ("blocks", "scores", "shared", "models") if disk[name]]
    yield f"disk: {size(disk['total'])} to write ({', '.join(parts) or 'nothing'})"
    phases = ", ".join(f"{name} {size(memory[name])}" for name in ("prune", "blocks", "finetune"))
    yield f"memory: {size(memory['peak'])} at the peak ({phases}), beside libraries and what a batch takes on its way"
    if told["length"]:
        yield told["length"]
    yield _last(told)


def _blocks(told: dict[str, Any]) -> Sheet:
    caption = "saved: part of the work that sharing spares; disk: of what is to do"
    unknown = any(row["stored"] is None for row in told["blocks"])
    caption += "; stored: --data is needed to tell" if unknown else ""
    title = f"Blocks for {plural(told['configurations'], 'configuration')} in {told['folder']}"
    sheet = Sheet(title, ["library", "level"], ["needed", "uses", "saved", "stored", "to do", "disk"], caption)
    for row in told["blocks"]:
        stored = NONE if row["stored"] is None else f"{row['stored']:,}"
        counts = f"{row['needed']:,}", f"{row['uses']:,}", percent(row["saved"]), stored, f"{row['to_do']:,}"
        sheet.add_row(row["library"], row["level"], *counts, size(row["bytes"]))
    return sheet


def _work(told: dict[str, Any]) -> Sheet:
    timed = told["verdict"] is not None
    some_done = timed and any(row["stored"] for row in told["blocks"])
    share = f"share {fraction(told['share']['value'])} ({told['share']['from']})"
    trainer = told["trainer"]
    if told["by_block"]:
        trainer += " (which says nothing of its work: counted and timed block by block, as if blocks shared none of it)"
    caption = f"criterion {told['criterion']}, block trainer {trainer}, {share}"
    caption += "; range: all pieces as in their quickest, and in their slowest try" if timed else ""
    figures = [*(["time", "range"] if timed else []), *(["to do"] if some_done else [])]
    sheet = Sheet("Work", ["work", "side", "pieces"], figures, caption)
    for row in told["work"]:
        pieces = ", ".join(
            plural(round(row["pieces"][unit]), *words) for unit, words in UNITS.items() if row["pieces"].get(unit)
        )
        times = []
        if timed:
            least, about, most = row["seconds"]
            times = [duration(about), f"{duration(least)} – {duration(most)}"]
            times += [duration(row["seconds_to_do"][1])] if some_done else []
        sheet.add_row(row["work"], row["side"], pieces, *times)
    if timed:
        sheet.add_section()
        for side, seconds in told["seconds"].items():
            sheet.add_row("in all", side, "", duration(seconds))
    return sheet


def _last(told: dict[str, Any]) -> str:
    if told["verdict"]:
        text: str = told["verdict"]["text"]
        return text
    steps = "" if told["steps"] else "; name --data (or --steps) to count steps of whole models"
    return f"--time predicts seconds, and from how many configurations on composing pays{steps}"
