"""The steps of the work, one function for each command: plan, prune, tune blocks, compose.

Each takes a recipe (or a workspace, to share what is loaded), works in the recipe's folder, does nothing
when its output is there and current, and returns an :class:`~composer.outcome.Outcome`. The planning steps
live in :mod:`composer.planning`, model-level work in :mod:`composer.runs`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import OutputError
from .jsonfile import reported, write_text
from .library import Library
from .models.base import BaseModel
from .outcome import Outcome
from .planning import generate_config, generate_scheme, scheme_size, show_model, show_scheme, take_config
from .progress import SILENT, Progress
from .provenance import changes, is_current, new_folder, record, write_record
from .scheme import SHARED, Scheme
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
    manifest = _manifest(library, plan, inputs, force)
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


def finetune_blocks(
    recipe: Given,
    *,
    scheme: Path | None = None,
    pruned: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Tune every block of the scheme once, bottom-up, into ``modules/finetuned``; ``stats/block.csv``.

    A trainer that works in context then lets all configurations learn as one network; ``stats/joint.csv``.
    """
    from .trainers import TRAINERS

    space = Workspace.of(recipe)
    r, plan = space.recipe, space.scheme(scheme)
    trainer = TRAINERS.get(r.trainer)
    start, library = Library(pruned or space.pruned), Library(output or space.finetuned)
    leaves = space.addresses(start, plan)
    from .spread import block_examples, block_settings, tune

    settings = block_settings(r)
    examples = block_examples(space)
    data = {name: split.digest for name, split in examples.items()}
    inputs: dict[str, Any] = {
        "scheme": plan.digest,
        "pruned": leaves,
        "settings": settings.lineage(trainer.fields),
        "data": data,
    }
    if trainer.in_context:
        from .joint import joint_settings
        from .trainers.whole import told_of

        learnt = told_of(joint_settings(space))
        inputs["finetune"] = learnt
        inputs["settings"] = {name: value for name, value in inputs["settings"].items() if name not in learnt}
    stats = space.folder / "stats" / "block.csv"
    curves = space.folder / "stats" / "joint.csv"
    held = _manifest(library, plan, inputs, force)
    if held and stats.is_file() and curves.is_file() == trainer.in_context:
        return Outcome(library.folder, False, {**held["summary"], "stats": str(stats)})
    library.sweep()
    with reported(library.folder):
        done = tune(space, scheme or space.conf_prune, (start, library), progress)
        found, work = done.addresses, {name: seconds_of(library, address) for name, address in done.addresses.items()}
        joint: dict[str, Any] = {}
        if trainer.in_context:
            from .joint import Joint
            from .stats import JOINT_COLUMNS, joint_rows, write_csv

            begin = (library, found) if r.block.start == "repaired" else (start, leaves)
            found, joint = Joint(space, plan, begin, library, examples["valid"], progress).run()
            work[SHARED] = seconds_of(library, found[SHARED])
            write_csv(curves, joint_rows(library.stats(found[SHARED]), plan.roots), JOINT_COLUMNS)
        else:
            curves.unlink(missing_ok=True)  # of another trainer
    seconds = write_block_stats(library, {**found, **done.addresses}, stats)
    summary = {
        "blocks": len(done.addresses),
        "tuned": done.tuned,
        "teacher_passes": done.teacher_passes,
        "seconds": sum(work.values()) or seconds,
        **({"joint": joint} if joint else {}),
    }
    told = {"summary": summary, "device": space.device, "recipe": space.resolved(), "work": work}
    if trainer.in_context:  # named, so that nobody tidies them away: what is added later starts from them
        told["start"] = done.addresses
    content = record(inputs, addresses=found, **told)
    library.write_manifest(plan.digest, content)
    return Outcome(library.folder, True, {**summary, "stats": str(stats)})


def seconds_of(library: Library, address: str) -> float:
    """The seconds that a stored block took."""
    return float(library.stats(address).get("seconds", 0.0))


def write_block_stats(library: Library, addresses: dict[str, str], path: Path) -> float:
    """Collect the history of these blocks into one CSV; returns the seconds that they took in all."""
    from .stats import BLOCK_COLUMNS, write_csv

    kept = [library.stats(address) for address in dict.fromkeys(addresses.values())]
    write_csv(path, [row for stats in kept for row in stats.get("rows", [])], BLOCK_COLUMNS)
    return float(sum(stats.get("seconds", 0.0) for stats in kept))


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


def _manifest(library: Library, plan: Scheme, inputs: dict[str, Any], force: bool) -> dict[str, Any] | None:
    """The library's record for the scheme if it is current and whole; another one wants ``force``."""
    held = library.manifest(plan.digest)
    if held is None:
        return None
    if held["inputs"] != inputs and not force:
        raise OutputError(
            f"{library.folder}: holds this scheme made from other inputs ({changes(held['inputs'], inputs)}); "
            "--force makes it again (stored blocks are kept)"
        )
    whole = held["inputs"] == inputs and all(address in library for address in held["addresses"].values())
    return held if whole else None
