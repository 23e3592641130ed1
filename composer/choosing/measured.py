"""What one pass told of a base model, for all choices. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from ..scheme.layout import Stream
from ..shrinking.units import Units
from .widths import widths


@dataclass(frozen=True)
class Measured:
    """What one pass told of a model.

    Attributes:
        rises: path of a part -> rise of the loss for each of its :func:`~composer.choosing.widths.widths`.
        lengths: stream -> tokens of an example, on average.
        parameters: of the whole model.
        stored: bytes of its weights on disk.
        written: bytes of one weight of the models that are made of it.
        levels: path of a part -> rise of the loss at each of its levels where single weights may go too, heads and
            neurons and weights by one rule; empty where they may not.
    """

    rises: Mapping[str, Sequence[float]]
    lengths: Mapping[Stream, float]
    parameters: int
    stored: int
    written: int
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def unseen(cls, units: Sequence[Units], *, parameters: int, stored: int, written: int) -> Self:
        """Before any pass: sizes alone are known, and that no unit takes nothing."""
        rises = {one.path: [0.0] * len(widths(one)) for one in units}
        lengths = {p.stream: 1.0 for one in units for p in one.projections}
        return cls(rises, lengths, parameters, stored, written)
