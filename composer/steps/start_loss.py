"""Where a composed model stands before any training of its own: its validation loss, measured once and kept."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from ..files.jsonfile import write_json
from ..files.records import is_current, record, recorded_result
from ..progress import SILENT, Progress
from ..workspace import Workspace
from .starting_model import starting_model


@dataclass(frozen=True)
class Composed:
    """The validation loss of a composed model, and the seconds that composing it took (a sweep included)."""

    loss: float
    seconds: float


def start_loss(space: Workspace, i: int, *, measure: bool = True, progress: Progress = SILENT) -> Composed | None:
    """Configuration ``i`` as it comes from the library; ``stats/start-<i>.json``.

    Args:
        measure: where it is not recorded, compose and measure it; otherwise the answer is None.
    """
    path = space.stats_named(f"start-{i}").with_suffix(".json")
    if not measure:
        result = recorded_result(path)
        return Composed(**result) if result else None
    start = starting_model(space, "composed", i)
    inputs = {**start.inputs(space), "valid": space.examples("valid").digest}
    if is_current(path, inputs, renew=True):
        return Composed(**(recorded_result(path) or {}))
    from ..tasks.loss import mean_loss

    began = time.perf_counter()
    model, _, swept = start.model(space, progress)
    seconds = max(time.perf_counter() - began, swept)  # a sweep that is stored took its time once
    found = Composed(mean_loss(model, space.task, space.examples("valid")), seconds)
    write_json(path, record(inputs, result=asdict(found)))
    return found
