"""`compose prune`: every variant of the scheme, each once, into a library."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..library.manifest import current_manifest, new_manifest
from ..library.store import Library
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome
from .settings import criterion_settings

if TYPE_CHECKING:
    from ..pruning.criteria.criterion import Criterion
    from ..scheme.graph import Scheme


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
    r, criterion = space.recipe, CRITERIA.get(space.recipe.criterion)()
    graph, library = space.scheme(scheme), Library(output or space.pruned)
    check_criteria(graph, space.base.layout, criterion)
    settings = criterion_settings(space, graph, criteria_of(graph, criterion))
    identity = {"name": criterion.name, **settings}
    inputs = {"scheme": graph.digest, "criterion": identity, "dead_columns": r.dead_columns}
    counts = partial(_counts, space, graph)
    current = current_manifest(library, graph, inputs, force=force)
    if current:
        return Outcome(
            library.folder, False, {**counts(current["addresses"]), "made": 0, "seconds": current["seconds"]}
        )
    with new_manifest(library, graph, inputs) as manifest:
        stored = set(library.addresses())
        addresses, seconds = _prune(space, graph, criterion, library, settings, progress)
        manifest |= {"addresses": addresses, "seconds": seconds, "recipe": space.resolved()}
    made = len(set(addresses.values()) - stored)
    return Outcome(library.folder, True, {**counts(addresses), "made": made, "seconds": seconds})


def _counts(space: Workspace, scheme: Scheme, addresses: Mapping[str, str]) -> dict[str, Any]:
    """Variants of modules, and of the sublayers whose removed heads or neurons pay for others; what is no target."""
    modules = len(scheme.at("module"))
    return {"variants": modules, "sublayers": len(addresses) - modules, "no_targets": space.base.no_targets}


def _prune(
    space: Workspace,
    scheme: Scheme,
    criterion: Criterion,
    library: Library,
    settings: dict[str, Any],
    progress: Progress,
) -> tuple[dict[str, str], float]:
    """Prune what the library lacks; returns addresses by node hash, and the seconds that it took.

    Gathering statistics for all targets at once is calibration, which later steps share, and not counted; where each
    layer is calibrated on what is pruned before it, the two alternate and are counted together.
    """
    from ..pruning.sequential import prune_in_order
    from ..pruning.variants import prune

    options: dict[str, Any] = {"settings": settings, "dead_columns": space.recipe.dead_columns, "progress": progress}
    layout, began = space.base.layout, time.perf_counter()
    if space.recipe.calibration == "sequential":
        model = space.fresh_model()
        options["calibrate"] = partial(space.calibrated, model, progress=progress)
        addresses = prune_in_order(model, layout, scheme, criterion, library, **options)
    else:
        sample = space.calibration(scheme, progress) if settings.keys() & {"calibration", "movement"} else None
        model, began = sample.model if sample else space.base.load(), time.perf_counter()
        calibration = (lambda: sample) if sample else None
        addresses = prune(model, layout, scheme, criterion, library, calibration=calibration, **options)
    return addresses, time.perf_counter() - began
