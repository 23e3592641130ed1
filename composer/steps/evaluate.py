"""`compose evaluate` and `compose predict`: models measured on the test split, and tried on texts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, InputError, RecipeError
from ..files.jsonfile import write_json
from ..files.records import is_current, record, recorded_result
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .card import refresh_card
from .outcome import Outcome

if TYPE_CHECKING:
    from torch import nn

    from ..tasks.task import Task


def evaluate(
    recipe: Given,
    models: Sequence[str | Path],
    *,
    output: Path | None = None,
    force: bool = False,
    renew: bool = False,
    speed: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Measure models on the test split; ``results/<name>.json`` each (``output`` names it for one model).

    Args:
        renew: measure again, without ``force``, what was measured on other weights or data.
        speed: also time the models in turn, on texts as long as half of the test texts are at most (one at a time, and
            sixteen); the record is ``summary["speed"]`` and ``results/speed.json``.
    """
    space = Workspace.of(recipe)
    if output and len(models) > 1:
        raise RecipeError(f"-o/--output: one file for {len(models)} models; give it with one model only")
    bases = [space.model(name) for name in models]
    space.assume_base(bases[0])
    paths = [output] if output else _result_files(space, bases)
    inputs = [_inputs(space, base) for base in bases]
    # Asked of all before any is measured: a refusal must not cost what was measured before it.
    current = [is_current(path, said, force=force, renew=renew) for path, said in zip(paths, inputs, strict=True)]
    results: dict[Path, dict[str, Any]] = {}
    with progress.bar("evaluate", len(bases)) as bar:
        for base, path, said, is_there in zip(bases, paths, inputs, current, strict=True):
            try:
                if path not in results:  # a model may be named twice
                    results[path] = (recorded_result(path) or {}) if is_there else _measure(space, base, path, said)
            except InputError as bad:
                raise type(bad)([*bad.problems, *(f"measured before that: {done}" for done in results)]) from None
            bar.advance(base.name)
    summary: dict[str, Any] = {"results": [results[path] for path in paths]}
    if speed:
        summary["speed"] = time_on_texts(space, models, space.result_named("speed"), progress)
    for base in bases:
        refresh_card(space, base)
    return Outcome(output or space.folder / "results", not all(current), summary)


def time_on_texts(
    space: Workspace, models: Sequence[str | Path], output: Path | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """The record of `compose speed` on texts like those of the test split; also in the file ``output``."""
    from statistics import median

    from ..tasks.task import input_lengths
    from .speed import speed

    length = max(1, round(median(input_lengths(space.examples("test").features))))
    how: dict[str, Any] = {"batch_sizes": (1, 16), "lengths": (length,), "device": space.device, "memory": False}
    return speed(models, **how, output=output, progress=progress).plain()


def _result_files(space: Workspace, bases: Sequence[BaseModel]) -> list[Path]:
    """A file for each model, named after its folder; where files would be called alike, after those above it too."""
    names = names_apart([base.place for base in bases], [space.result_file(base).stem for base in bases])
    return [space.result_named(names[base.place]) for base in bases]


def names_apart(places: Sequence[Path], short: Sequence[str]) -> dict[Path, str]:
    """A name for each place: the short one, or where those would be alike, with the folders above it."""
    names = dict(zip(places, short, strict=True))
    whole = {place: Path(os.path.abspath(place)) for place in places}
    for depth in range(2, max((len(path.parts) for path in whole.values()), default=0) + 1):
        uses = Counter(name for _, name in {(whole[place], name) for place, name in names.items()})
        alike = [place for place, name in names.items() if uses[name] > 1]
        names |= {place: "-".join(whole[place].parts[-depth:]).strip(os.sep) for place in alike}
    return names


def _inputs(space: Workspace, base: BaseModel) -> dict[str, Any]:
    """What decides whether a result is current."""
    data, task = space.examples("test"), space.task
    return {"model": base.fingerprint, "data": data.digest, "task": task.name, **task.scoring}


def _measure(space: Workspace, base: BaseModel, path: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """Measure one model, and keep the result at ``path``."""
    from ..evaluation.measure import measure

    model = base.load().to(space.device)
    result = {
        "model": base.name,
        **measure(model, None if base.export else base.layout, space.task, space.examples("test")),
        "no_targets": base.no_targets,
    }
    write_json(path, record(inputs, result=result, device=space.device, recipe=space.resolved()))
    return result


def predict(recipe: Given, model: str | Path, texts: Sequence[str], *, progress: Progress = SILENT) -> list[str]:
    """What ``model`` makes of each text; of a blank one nothing.

    A text that it cannot read gives an empty answer and a note, so that one bad line of a file costs one line.

    Raises:
        DataError: none of the texts can be read.
    """
    from ..tasks import DataOptions, open_task

    space = Workspace.of(recipe)
    base = space.model(model)
    options = DataOptions(**{n: getattr(space.recipe, n) for n in DataOptions.model_fields if n != "data"}, data="demo")
    task = open_task(options, base.folder, base.config, base.task)
    loaded = base.load().to(space.device)
    asked = [i for i, text in enumerate(texts) if text.strip()]
    answers = [""] * len(texts)
    try:
        found = task.predict(loaded, [texts[i] for i in asked]) if asked else []
    except DataError:
        found = _one_by_one(task, loaded, [texts[i] for i in asked], progress)
    for i, answer in zip(asked, found, strict=True):
        answers[i] = answer
    return answers


def _one_by_one(task: Task, model: nn.Module, texts: Sequence[str], progress: Progress) -> list[str]:
    answers: list[str] = []
    problems: list[str] = []
    for text in texts:
        try:
            answers += task.predict(model, [text])
        except DataError as bad:
            answers.append("")
            problems += bad.problems
    if len(problems) == len(texts):
        raise DataError(problems)
    for problem in problems:
        progress.note(problem)
    return answers
