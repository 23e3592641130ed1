"""`compose finetune --level model`: one whole model learns, into a folder with its record and its table."""

from __future__ import annotations

import shutil
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.atomic import new_folder, saving_errors
from ..files.jsonfile import digest_of, read_json
from ..files.records import RECORD, is_current, record, recorded_result, write_record
from ..files.stats import write_csv
from ..progress import SILENT, Progress
from ..workspace import Given, Kind, Workspace
from .outcome import Outcome
from .settings import model_settings
from .starting_model import StartingModel, starting_model

if TYPE_CHECKING:
    from torch import nn

    from ..training.settings import ModelSettings, ModelTuning


def finetune_model(
    recipe: Given,
    kind: Kind,
    i: int | None,
    *,
    scheme: Path | None = None,
    modules: Path | None = None,
    output: Path | None = None,
    learning_rate: float | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Fine-tune one model whole into ``models/…`` with ``stats/….csv``.

    Args:
        kind: ``composed`` starts from tuned blocks, ``baseline`` from pruned variants, ``dense`` from the base.
        i: the configuration (None for dense).
        learning_rate: wins over the recipe's (what a search has chosen).
    """
    space = Workspace.of(recipe)
    start = starting_model(space, kind, i, scheme, modules)
    settings = model_settings(space)
    if learning_rate is not None:
        settings = replace(settings, learning_rate=learning_rate)
    folder = output or space.model_folder(kind, start.i)
    space.check_output(folder, *([modules] if modules else []))
    csv = space.stats_file(kind, start.i)
    inputs = inputs_of(space, start, settings)
    if is_current(folder, inputs, force=force) and csv.is_file():
        return Outcome(folder, False, recorded_result(folder) or {})
    warn_if_no_better_than_chance(space, progress)
    return _adopt(space, inputs, csv, folder) or tune(space, start, settings, inputs, csv, folder, progress)


def trial(
    space: Workspace,
    start: StartingModel,
    settings: ModelSettings,
    name: str,
    *,
    keep: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """A run for its figures: ``stats/<name>.csv`` and its record.

    ``keep`` leaves its model in a work folder, where :func:`finetune_model` finds it when it is asked for the
    very same run (the learning-rate search's winner is not trained twice).
    """
    csv = space.stats_named(name)
    inputs = inputs_of(space, start, settings)
    # A trial is the comparison's own file: when its inputs changed it is simply made again.
    if is_current(csv, inputs, renew=True):
        return recorded_result(csv) or {}
    return tune(space, start, settings, inputs, csv, _kept_trial(space, inputs) if keep else None, progress).summary


def _kept_trial(space: Workspace, inputs: dict[str, Any]) -> Path:
    return space.folder / ".work" / f"trial-{digest_of(inputs)[:16]}"


def _adopt(space: Workspace, inputs: dict[str, Any], csv: Path, folder: Path) -> Outcome | None:
    """Take over the model of a trial with the same inputs, if there is one."""
    kept = _kept_trial(space, inputs)
    if not (kept / RECORD).is_file():
        return None
    content = read_json(kept / RECORD)
    source = Path(content["result"]["stats"])
    if not source.is_file() or content["inputs"] != inputs:
        return None
    content["result"]["stats"] = str(csv)
    with new_folder(folder) as temporary:
        shutil.copytree(kept, temporary, dirs_exist_ok=True)
        write_record(temporary, content)
        shutil.copyfile(source, csv)
        write_record(csv, content)
    shutil.rmtree(kept)
    return Outcome(folder, True, content["result"])


def warn_if_no_better_than_chance(space: Workspace, progress: Progress) -> None:
    """A note when the base model knows nothing of the task (once per workspace)."""
    if space.chance_checked:
        return
    space.chance_checked = True
    from ..tasks.loss import mean_loss

    chance = space.task.chance()
    sample = space.examples("valid").first(256)
    loss = mean_loss(space.fresh_model(), space.task, sample) if chance is not None else 0.0
    if chance is not None and loss >= chance:
        progress.note(
            f"warning: the base model is no better than chance on this task (validation loss {loss:.3f}, "
            f"chance {chance:.3f}); fine-tune it dense first: compose finetune --level model --dense"
        )


def tune(
    space: Workspace,
    start: StartingModel,
    settings: ModelSettings,
    inputs: dict[str, Any],
    csv: Path,
    folder: Path | None,
    progress: Progress,
) -> Outcome:
    """Train the model that ``start`` makes, and keep it where a folder is given, with its table."""
    from ..parallel.ranks import is_main_process
    from ..training.model import tune_model, untrained
    from ..training.settings import broke_text

    began = time.perf_counter()
    model, masks, sweeping = start.model(space, progress)
    composing = max(time.perf_counter() - began, sweeping)  # a sweep that is stored took its time once
    work = space.folder / ".work" / f"{csv.stem}-{digest_of(inputs)[:12]}"
    label = f"{start.label}: {settings.steps} steps at {settings.learning_rate:g}"
    train, valid = space.examples("train"), space.examples("valid")
    work.mkdir(parents=True, exist_ok=True)
    with saving_errors(folder or csv):
        tuned = (
            tune_model(
                model,
                masks,
                space.task,
                train,
                valid,
                settings,
                work=work,
                answers=space.answers(settings, progress),
                modules=[p.path for target in space.base.layout.targets for p in target.projections],
                label=label,
                progress=progress,
            )
            if settings.steps
            else untrained(model, space.task, valid)
        )
    start.finish(model, space)
    if tuned.broke is not None:
        progress.note(broke_text(label, tuned.broke))
    result = {
        "kind": start.kind,
        "configuration": start.i,
        "steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "first_loss": tuned.first_loss,
        "final_loss": tuned.best_loss,
        "best_step": tuned.best_step,
        "seconds": tuned.train_seconds,
        "compose_seconds": composing,
        **({"learnt": {"train": settings.train, **tuned.part}} if tuned.part else {}),
        **start.told(),
        "stats": str(csv),
    }
    if is_main_process():
        _keep(
            space,
            start,
            settings,
            model,
            record(inputs, result=result, device=space.device, recipe=space.resolved()),
            tuned,
            csv,
            folder,
        )
        shutil.rmtree(work, ignore_errors=True)
    return Outcome(folder or csv, True, result)


def _keep(
    space: Workspace,
    start: StartingModel,
    settings: ModelSettings,
    model: nn.Module,
    content: dict[str, Any],
    tuned: ModelTuning,
    csv: Path,
    folder: Path | None,
) -> None:
    """Write the model, where it is wanted, and its table, with the record of both."""
    from ..composing.card import Making, model_card, read_card_data, write_card
    from ..report.kept import said
    from ..shrinking.kept import kept_units

    with new_folder(folder) if folder else nullcontext() as temporary:
        if temporary:
            how = f"{start.label}, fine-tuned for {settings.steps} steps"
            space.base.save(model, temporary)
            digest = start.scheme.digest if start.scheme else None
            data = read_card_data(space.recipe.card_data)
            making = Making(space.base, how, start.command, digest, data)
            stacks = kept_units(space.base, dict(model.named_parameters()))
            card = model_card(making, start.root, start.sparsity(space), said(stacks))
            write_card(temporary, card, stacks, f"{space.base.title}, {start.label}")
            write_record(temporary, content)
        write_csv(csv, tuned.rows)
        write_record(csv, content)


def inputs_of(space: Workspace, start: StartingModel, settings: ModelSettings) -> dict[str, Any]:
    """What identifies a run: where it starts, its settings and its data."""
    from ..training.settings import identity_of

    data = {"train": space.examples("train").digest, "valid": space.examples("valid").digest}
    return {**start.inputs(space), "kind": start.kind, "settings": identity_of(settings), "data": data}
