"""What the benchmarks have in common: a planned workspace, models composed from a library and their losses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.composing.assemble import compose
from composer.files.journal import Journal
from composer.library.store import Library
from composer.scheme.configurations import Configurations, write_configurations
from composer.steps.configure import generate_scheme
from composer.tasks.loss import mean_loss
from composer.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn


def plan(
    space: Workspace, configurations: Sequence[Mapping[str, Any]], *, name: str = "conf", force: bool = False
) -> Path:
    """Write configurations and their scheme, ``<name>.json`` and ``<name>_prune.json``; returns the scheme's path."""
    config, scheme = space.folder / f"{name}.json", space.folder / f"{name}_prune.json"
    given = Configurations(configurations=[dict(one) for one in configurations], model=space.recipe.model)
    write_configurations(config, given)
    generate_scheme(space, config=config, output=scheme, force=force)
    return scheme


def composed(space: Workspace, modules: Path, scheme: Path | None = None) -> Iterator[nn.Module]:
    """Every configuration's model as it comes from a library, one after the other."""
    planned, library = space.scheme(scheme), Library(modules)
    addresses = space.addresses(library, planned)
    for i in range(len(planned.roots)):
        model = space.fresh_model()
        compose(model, space.base.layout, planned, i, library, addresses)
        yield model


def losses(space: Workspace, modules: Path) -> list[float]:
    """Validation loss of every configuration as it comes from a library."""
    return [mean_loss(model, space.task, space.examples("valid")) for model in composed(space, modules)]


def timed_row(journal: Journal, key: tuple[Any, ...], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row of a journal with the processor seconds that it took, ``cpu``; made where it is not there."""

    def timed() -> dict[str, Any]:
        start = time.process_time()
        made = make()
        return {**made, "cpu": round(time.process_time() - start, 1)}

    return journal.row(key, timed)
