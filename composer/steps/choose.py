"""`compose choose`: from wishes to configurations, by what every attention and feed-forward costs at every width."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..choosing.wishes import check_weights, read_wishes
from ..files.jsonfile import write_json
from ..files.records import record
from ..progress import SILENT, Progress
from ..scheme.configurations import Configurations, write_configurations
from ..workspace import Given, Workspace
from .chooser import Chooser
from .configure import same_json
from .outcome import Outcome


def choose(
    recipe: Given,
    *,
    output: Path | None = None,
    measure: bool = True,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Write ``conf.json`` with one configuration per wish of the recipe, and ``choice.json`` with what decided it.

    One pass over the calibration sample gives what every attention and feed-forward costs the loss at every width
    (:mod:`composer.calibration.rises`), and where wishes are about time a table of seconds what it takes there
    (:mod:`.part_times`); an integer program chooses the widths (:mod:`composer.choosing.program`). What was measured is
    kept as it comes: a call that was killed, or with other wishes, goes on from there.

    Args:
        measure: also measure every choice, and the uniform one within the same wish: loss after pruning and repair in
            closed form, on the validation split, and how many times as fast it is.

    Raises:
        ConfigError: wishes that contradict each other or nobody can meet.
        InputError: a machine that is too noisy to measure time.
        OutputError: ``conf.json`` has other content.
    """
    space = Workspace.of(recipe)
    asked = read_wishes(space.recipe)
    if space.recipe.unstructured:
        check_weights(asked)
    path = output or space.conf
    chooser = Chooser(space, path.parent, asked, measure=measure, force=force, progress=progress)
    choices = chooser.choose()
    content = Configurations(
        model=space.stored_name(path.parent), configurations=[{**chooser.menu.specs(choice)} for choice in choices]
    )
    fresh = not same_json(path, content.model_dump(exclude_none=True), force)
    summary = {**chooser.summary(choices), "next": _next(space, path)}
    file = path.with_name("choice.json")
    told = {**summary, "provenance": record(chooser.measures.inputs, recipe=space.resolved())}
    write_json(file, told)
    _draw(told, file)
    if fresh:
        write_configurations(path, content)
    return Outcome(path, fresh, {**summary, "choice": str(file)})


def _next(space: Workspace, conf: Path) -> str:
    """The command that makes the chosen models, on the same calibration examples."""
    recipe = space.recipe
    data = ["--data", recipe.data] if recipe.data else []
    lengths = ["--calibration-lengths", "valid"] if recipe.lengths_like == "valid" else []
    return shlex.join(
        ["compose", "run", "-m", space.base.name, *map(str, data), "--config", str(conf), *lengths, "--shrink"]
    )


def _draw(told: Mapping[str, Any], file: Path) -> None:
    """The page and the picture beside ``choice.json``."""
    from ..report.choices import draw, write_page_of

    write_page_of(told, file.with_suffix(".html"))
    draw(told, file.with_suffix(".png"))
