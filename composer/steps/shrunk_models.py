"""The end of a run with ``shrink: true``: every configuration shrunk, evaluated and timed beside the base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choosing.wishes import read_wishes
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..workspace import Workspace
from .card import refresh_card
from .evaluate import evaluate
from .shrink import SUFFIX, shrink
from .speed import speed

if TYPE_CHECKING:
    from ..timing.records import Speed

BATCH_SIZES, LENGTH = (1, 16), 128
ROUNDS = 9


def shrunk_models(space: Workspace, *, force: bool = False, progress: Progress = SILENT) -> list[dict[str, Any]]:
    """Shrink what a run has made, measure all of it, and put the figures into the cards; a row for each model.

    Where single weights were chosen, a model that lost no whole unit stands there as it is.

    A row has the configuration, folder and form, the task's metrics of the small model and of the base model, bytes and
    MACs of both, and for each batch size how many times as fast it is. The first row is the base model's. Where single
    weights were chosen it also has how many parameters are not zero, and where a wish chose it, the wish.
    """
    from ..shrinking.plan import NothingWholeError
    from ..shrinking.weights import Weights

    folders = []
    for i in range(len(space.scheme().roots)):
        tuned, built = space.model_folder("composed", i), space.built_model(i)
        masked, folder = tuned if tuned.is_dir() else built, built.with_name(built.name + SUFFIX)
        try:
            shrink(masked, folder, force=force, progress=progress)
        except NothingWholeError:
            if not space.recipe.unstructured:
                raise
            folder = masked
        folders.append(folder)
    names = [space.base.name, *map(str, folders)]
    results = evaluate(space, names, force=force, renew=True, progress=progress).summary["results"]
    bases = [BaseModel(name) for name in names]
    timed = _timed(space, bases, names, force, progress)
    for base in bases[1:]:
        refresh_card(space, base)
    rows = [_row(i, name, result, timed) for i, (name, result) in enumerate(zip(names, results, strict=True))]
    if space.recipe.wishes_anything and not space.recipe.config:
        for row, wish in zip(rows[1:], read_wishes(space.recipe), strict=True):
            row["wish"] = str(wish)
    if space.recipe.unstructured:
        rows = [{**row, "not_zero": Weights(base.folder).not_zero} for row, base in zip(rows, bases, strict=True)]
    return rows


def _timed(space: Workspace, bases: list[BaseModel], names: list[str], force: bool, progress: Progress) -> Speed:
    """Seconds of all of them, measured in turn; as they were measured before where nothing has changed."""
    from ..timing.records import Speed

    path = space.result_named("speed")
    if path.is_file() and not force:
        found = Speed.read(path)
        if [entry.fingerprint for entry in found.entries] == [base.fingerprint for base in bases]:
            return found
    path.parent.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {"batch_sizes": BATCH_SIZES, "lengths": (LENGTH,), "rounds": ROUNDS}
    if space.recipe.wishes_anything:  # timed as it was wished
        time = space.recipe.time
        how = {"batch_sizes": (time.batch_size,), "lengths": (time.length,), "rounds": time.repeat}
        how |= {"new_tokens": time.new_tokens, "threads": time.threads}
    return speed(names, **how, memory=False, device=space.device, output=path, progress=progress)


def _row(i: int, name: str, result: dict[str, Any], timed: Speed) -> dict[str, Any]:
    rows = [row for row in timed.rows if row.entry == i]
    return {
        "configuration": i - 1 if i else None,
        "model": str(Path(name)),
        "metrics": result["metrics"],
        "loss": result["loss"],
        "bytes": timed.entries[i].bytes,
        "parameters": timed.entries[i].parameters,
        "faster": [
            {
                "part": row.part,
                "batch_size": row.batch_size,
                "seconds": timed.seconds(row).median,
                "value": row.faster.value if row.faster else 1.0,
                "noisy": bool(row.faster and row.faster.noisy),
                "macs": row.macs_ratio,
            }
            for row in rows
        ],
    }
