"""Runtime against rate: the dense model, the masked one and the shrunk one in turn, at one rate after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any, TypedDict

from ..models.folder import BaseModel
from .loaded import Loaded
from .measure import Clock, Shapes, time_in_turn
from .records import Row

if TYPE_CHECKING:
    import torch

FORMS = ("masked", "shrunk")


class RatePoint(TypedDict):
    """One form of a model at one rate, on one shape of input; ``faster`` is against the dense model, in pairs.

    ``macs`` is the dense model's multiply-accumulates over its own, ``milliseconds`` a median, of the clock that ratios
    are of; of one new token of each text where ``part`` says so.
    """

    rate: float
    removed_share: float
    form: str
    part: str
    batch_size: int
    length: int
    milliseconds: float
    milliseconds_dense: float
    faster: dict[str, Any]
    macs: float | None
    parameters: int
    bytes: int


def time_at(
    rate: float,
    removed_share: float,
    models: tuple[BaseModel, BaseModel, BaseModel],
    shapes: Shapes,
    clock: Clock,
    device: torch.device,
) -> list[RatePoint]:
    """Time a dense, a masked and a shrunk model in turn.

    Args:
        removed_share: of the target weights.
        models: dense, masked, shrunk.
    """
    rows = time_in_turn([Loaded.torch(base, device) for base in models], shapes, clock)
    dense = {(row.part, row.batch_size, row.length): row for row in rows if row.entry == 0}
    return [
        {
            "rate": rate,
            "removed_share": removed_share,
            "form": FORMS[row.entry - 1],
            "part": row.part,
            "batch_size": row.batch_size,
            "length": row.length,
            "milliseconds": _milliseconds(row, clock),
            "milliseconds_dense": _milliseconds(dense[row.part, row.batch_size, row.length], clock),
            "faster": asdict(row.faster),
            "macs": row.macs_ratio,
            "parameters": models[row.entry].parameters,
            "bytes": models[row.entry].bytes,
        }
        for row in rows
        if row.faster
    ]


def _milliseconds(row: Row, clock: Clock) -> float:
    return 1e3 * (row.wall if clock == "wall" else row.processor).median


def runtime_note(rows: Sequence[RatePoint]) -> str:
    """What they say, in two or three sentences: masks bring nothing, what is gone does."""
    own: dict[str, list[RatePoint]] = {form: [row for row in rows if row["form"] == form] for form in FORMS}
    if not all(own.values()):
        return ""
    masked = [row["faster"]["value"] for row in own["masked"]]
    told = f"Masked models were {_span(masked)} times as fast as the dense one"
    if all(row["faster"]["noisy"] or row["faster"]["value"] < 1.1 for row in own["masked"]):
        told += ": no gain, as a masked weight is a zero that is multiplied like any other."
    else:
        told += ". That is not what masks do, as a zero is multiplied like any other: look for what else differed."
    parts = dict.fromkeys(row["part"] for row in rows)
    most = max(row["rate"] for row in rows)
    for part in parts:
        best = [row for row in own["shrunk"] if row["part"] == part and row["rate"] == most]
        faster, macs = median(row["faster"]["value"] for row in best), median(row["macs"] or 1 for row in best)
        noisy = " (too noisy to say)" if all(row["faster"]["noisy"] for row in best) else ""
        what = "" if part == "forward" else f" ({part})"
        told += f" Shrunk at {most:.0%}{what}: {faster:.2f} times as fast{noisy}, {macs:.2f} times by multiplications."
    return told


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
