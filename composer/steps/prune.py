"""`compose prune`: every variant of the scheme, each once, into a library."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from ..files.jsonfile import reported
from ..files.records import record
from ..library.store import Library
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome
from .settings import criterion_settings
from .tune_blocks import current_manifest


def prune(
    recipe: Given,
    *,
    scheme: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Prune every variant of the scheme, each once, into ``modules/pruned``."""
    from ..pruning.criteria import CRITERIA
    from ..pruning.criteria.choice import check_criteria, criteria_of

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
    from ..pruning.variants import prune as work

    library.sweep()
    options: dict[str, Any] = {"settings": settings, "dead_columns": space.recipe.dead_columns, "progress": progress}
    held, began = set(library.addresses()), time.perf_counter()
    with reported(library.folder):
        if space.recipe.calibration == "sequential":
            from ..pruning.sequential import prune_in_order

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
