"""`compose evaluate` and `compose predict`: models measured on the test split, and tried on texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..files.jsonfile import write_json
from ..files.records import is_current, record, recorded_result
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Given, Workspace
from .outcome import Outcome


def evaluate(
    recipe: Given,
    models: Sequence[str | Path],
    *,
    output: Path | None = None,
    force: bool = False,
    renew: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Measure models on the test split; ``results/<name>.json`` each (``output`` names it for one model).

    Args:
        renew: measure again, without ``force``, what was measured on other weights or data.
    """
    space = Workspace.of(recipe)
    if output and len(models) > 1:
        raise RecipeError(f"-o/--output: one file for {len(models)} models; give it with one model only")
    results, fresh = [], False
    bases = [BaseModel(name) for name in models]
    space.assume_base(bases[0])
    with progress.bar("evaluate", len(bases)) as bar:
        for base in bases:
            path = output or space.result_file(base.folder)
            result, measured = _evaluate_one(space, base, path, force, renew)
            results.append(result)
            fresh = fresh or measured
            bar.advance(base.name)
    return Outcome(output or space.folder / "results", fresh, {"results": results})


def _evaluate_one(
    space: Workspace, base: BaseModel, path: Path, force: bool, renew: bool
) -> tuple[dict[str, Any], bool]:
    """The result of one model, and whether it was measured now."""
    from ..evaluation.measure import measure

    data = space.examples("test")
    inputs = {
        "model": base.fingerprint,
        "data": data.digest,
        "task": space.task.name,
        **space.task.scoring,
    }
    if is_current(path, inputs, force=force, renew=renew):
        return recorded_result(path) or {}, False
    model = base.load().to(space.device)
    result = {"model": base.name, **measure(model, base.layout, space.task, data)}
    write_json(path, record(inputs, result=result, device=space.device, recipe=space.resolved()))
    return result, True


def predict(recipe: Given, model: str | Path, texts: Sequence[str]) -> list[str]:
    """What ``model`` makes of each text."""
    from ..tasks import DataOptions, open_task

    space, base = Workspace.of(recipe), BaseModel(model)
    options = DataOptions(**{n: getattr(space.recipe, n) for n in DataOptions.model_fields if n != "data"}, data="demo")
    task = open_task(options, base.folder, base.config, base.task)
    return task.predict(base.load().to(space.device), texts)
