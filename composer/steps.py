"""The steps of the work, one function for each command: plan, prune, tune blocks, compose.

Each takes a recipe (or a workspace, to share what is loaded), works in the recipe's folder, does nothing
when its output is there and current, and returns an :class:`~composer.outcome.Outcome`. The planning steps
live in :mod:`composer.planning`, block-level fine-tuning in :mod:`composer.blocks`, model-level work in
:mod:`composer.runs`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blocks import current_manifest, finetune_blocks
from .jsonfile import reported, write_text
from .library import Library
from .models.base import BaseModel
from .outcome import Outcome
from .planning import generate_config, generate_scheme, scheme_size, show_model, show_scheme, take_config
from .progress import SILENT, Progress
from .provenance import is_current, new_folder, record, write_record
from .scheme import Scheme
from .workspace import Given, Kind, Workspace

if TYPE_CHECKING:
    from .criteria.criterion import Criterion

__all__ = [
    "build_model",
    "evaluate",
    "finetune_blocks",
    "finetune_model",
    "generate_config",
    "generate_scheme",
    "predict",
    "prune",
    "scheme_size",
    "show_model",
    "show_scheme",
    "take_config",
]


def prune(
    recipe: Given,
    *,
    scheme: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Prune every variant of the scheme, each once, into ``modules/pruned``."""
    from .criteria import CRITERIA
    from .criteria.choice import check_criteria, criteria_of

    space = Workspace.of(recipe)
    criterion = CRITERIA.get(space.recipe.criterion)()
    plan = space.scheme(scheme)
    check_criteria(plan, space.base.layout, criterion)
    used = criteria_of(plan, criterion)
    library = Library(output or space.pruned)
    settings = criterion_settings(space, plan, used)
    inputs: dict[str, Any] = {"scheme": plan.digest, "criterion": {"name": criterion.name, **settings}}
    inputs["dead_columns"] = space.recipe.dead_columns
    leaves = len(plan.at("module"))
    manifest = current_manifest(library, plan, inputs, force)
    if manifest:
        return Outcome(library.folder, False, {"variants": leaves, "made": 0, "seconds": manifest["seconds"]})
    from .stages.prune import prune as work

    library.sweep()
    options: dict[str, Any] = {"settings": settings, "dead_columns": space.recipe.dead_columns, "progress": progress}
    held, began = set(library.addresses()), time.perf_counter()
    with reported(library.folder):
        if space.recipe.calibration == "sequential":
            from .sequential import prune_in_order

            model = space.fresh_model()
            options["calibrate"] = partial(space.calibrated, model, progress=progress)
            addresses = prune_in_order(model, space.base.layout, plan, criterion, library, **options)
        else:
            sampled = space.calibration(plan, progress) if "calibration" in settings else None
            model, began = sampled.model if sampled else space.base.load(), time.perf_counter()
            calibration = (lambda: sampled) if sampled else None
            addresses = work(model, space.base.layout, plan, criterion, library, calibration=calibration, **options)
    seconds = time.perf_counter() - began
    made = len(set(addresses.values()) - held)
    content = record(inputs, addresses=addresses, seconds=seconds, recipe=space.resolved())
    library.write_manifest(plan.digest, content)
    return Outcome(library.folder, True, {"variants": leaves, "made": made, "seconds": seconds})


def build_model(
    recipe: Given,
    i: int,
    *,
    scheme: Path | None = None,
    modules: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Compose configuration ``i`` into an ordinary Hugging Face folder, ``models/i``."""
    from .start import start_of

    space = Workspace.of(recipe)
    start = start_of(space, "composed", i, scheme, modules)
    plan = space.scheme(scheme)
    root, folder = plan.root(i), output or space.folder / "models" / str(i)
    inputs = start.inputs(space)
    sparsity = plan.sparsity(i, space.base.layout)
    source = modules or space.finetuned
    summary = {"configuration": i, "sparsity": sparsity, "from": str(source), "swept": start.sweep is not None}
    if is_current(folder, inputs, force=force):
        return Outcome(folder, False, summary)
    from .stages.card import model_card

    model, _, _ = start.model(space, progress)
    with new_folder(folder) as temporary:
        space.base.save(model, temporary)
        how = f"composed from {len(inputs['blocks'])} blocks" + (", then swept" if start.sweep else "")
        write_text(temporary / "README.md", model_card(space.base, root, sparsity, how))
        write_record(temporary, record(inputs, configuration=i, rates=root.rates, recipe=space.resolved()))
    return Outcome(folder, True, summary)


def finetune_model(recipe: Given, kind: Kind, i: int | None, **options: Any) -> Outcome:
    """Fine-tune one model whole; see :func:`composer.runs.finetune_model`."""
    from .runs import finetune_model as work

    return work(Workspace.of(recipe), kind, i, **options)


def evaluate(
    recipe: Given,
    models: Sequence[str | Path],
    *,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Measure models on the test split; one ``results/<name>.json`` each."""
    from .runs import evaluate_models

    return evaluate_models(Workspace.of(recipe), models, output=output, force=force, progress=progress)


def predict(recipe: Given, model: str | Path, texts: Sequence[str]) -> list[str]:
    """What ``model`` makes of each text."""
    from .tasks import DataOptions, open_task

    space, base = Workspace.of(recipe), BaseModel(model)
    options = DataOptions(**{n: getattr(space.recipe, n) for n in DataOptions.model_fields if n != "data"}, data="demo")
    task = open_task(options, base.folder, base.config, base.task)
    return task.predict(base.load().to(space.device), texts)


def criterion_settings(space: Workspace, plan: Scheme, criteria: Sequence[Criterion]) -> dict[str, Any]:
    """What identifies the statistics that these criteria look at: calibration sample, seed."""
    from .criteria.choice import looks_at_data
    from .sequential import check_sequential

    r = space.recipe
    needs = {need for criterion in criteria for need in criterion.needs}
    settings: dict[str, Any] = {"seed": r.seed} if "seed" in needs else {}
    if looks_at_data(*criteria):
        settings["calibration"] = space.sample_identity()
    if r.calibration == "sequential":
        check_sequential(plan, criteria)
        # What later layers read depends on how all before them were pruned.
        before = {"criterion": r.criterion, "dead_columns": r.dead_columns, "configuration": plan.roots[0]}
        settings["calibration"] |= {"inputs": "sequential", **before}
    return settings
