"""One configuration that was chosen: what of each part stays, and how that is said to pruning. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..scheme.configurations import Spec
from ..scheme.shapes import rate_of
from ..shrinking.units import Units
from .widths import Level

CRITERION = "obs"
"""What decides which heads and neurons go, where their number was chosen: its costs are those that were compared."""
OF_LOSS = "obs_loss"
"""The same on moments that know the loss: better where little goes, worse where much does
(docs/decisions/choosing.md)."""


@dataclass(frozen=True)
class Choice:
    """One configuration.

    Attributes:
        levels: path of a part -> what of it stays.
        rise: of the loss, as predicted: the sum over the parts.
        left: resource -> the part of the base model's that is left.
        criterion: decides which heads and neurons go.
    """

    levels: Mapping[str, Level]
    rise: float
    left: Mapping[str, float]
    criterion: str = CRITERION

    def same(self, other: Choice) -> bool:
        """Whether another one makes the same model."""
        return self.levels == other.levels and self.criterion == other.criterion

    @property
    def kept(self) -> dict[str, int]:
        """Path of a part -> how many of its units stay."""
        return {path: level.kept for path, level in self.levels.items()}

    @property
    def weights(self) -> dict[str, float]:
        """Path of a part of which single weights go -> their share."""
        return {path: level.rate for path, level in self.levels.items() if level.rate}

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        said = {"kept": self.kept, "weights": self.weights, "criterion": self.criterion}
        return {**said, "rise": self.rise, "left": dict(self.left)}


def specs_of(units: Units, level: Level, criterion: str = CRITERION) -> dict[str, Spec]:
    """One part of a configuration; nothing where it stays whole. ``criterion`` is that of heads and neurons."""
    neurons = units.kind == "feed_forward"
    if removed := units.count - level.kept:
        rate, shape = rate_of(removed, units.count), "neuron" if neurons else None
        return {units.path: Spec(rate=rate, granularity=shape, criterion=criterion)}
    if not level.rate:
        return {}
    # Of an attention's target the default is heads; all others are single matrices, whose default is weights.
    single = Spec(rate=level.rate, criterion=CRITERION)
    if neurons:
        return {p.path: single for p in units.projections}
    return {units.path: single.model_copy(update={"granularity": "unstructured"}), units.last.path: single}
