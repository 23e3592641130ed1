"""What shrinking did, layer by layer: typed, for the table, for JSON and for the record beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .units import Kind, Units
from .zeros import Found

Form = Literal["plain", "padded", "exact"]

LENGTH = 128
"""Tokens of the text whose multiplications are counted."""


@dataclass(frozen=True)
class Change:
    """A number before and after."""

    before: int
    after: int

    def __add__(self, other: Change) -> Change:
        return Change(self.before + other.before, self.after + other.after)

    @property
    def share(self) -> float:
        """What is left of it."""
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True)
class Row:
    """One attention or feed-forward.

    Attributes:
        units: how many heads (groups) or neurons it had, and has.
        zeros: weights of what is kept that are 0 all the same.
        parameters: weights and biases.
        bytes: what they take on disk.
        macs: multiplications for one token of a text of :data:`LENGTH` tokens.
        constant: whether units that went left a constant in the last projection's bias.
    """

    layer: str
    path: str
    kind: Kind
    units: Change
    zeros: int
    parameters: Change
    bytes: Change
    macs: Change
    constant: bool


@dataclass(frozen=True)
class Verification:
    """How the saved model compares with the masked one, in a fresh process.

    Attributes:
        difference: largest absolute difference of their logits.
        relative: the same, relative to the largest logit.
        generated: tokens that greedy and beam search gave, all of them equal; None for a model that does not generate.
    """

    difference: float
    relative: float
    generated: int | None


@dataclass(frozen=True)
class Report:
    """What became of a model.

    Attributes:
        form: what the folder is.
        why: one line about that choice.
        rows: one for each attention and feed-forward, in execution order.
        parameters, bytes: of the whole model.
        macs: of ``rows`` together.
        dropped: layers of which nothing was left, and that are not there any more.
        verification: how the result was held against the masked model.
    """

    form: Form
    why: str
    rows: tuple[Row, ...]
    parameters: Change
    bytes: Change
    macs: Change
    dropped: tuple[str, ...] = ()
    verification: Verification | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def row(units: Units, found: Found, width: int, zeros: int, *, gone: bool = False) -> Row:
    """The row of some units.

    Args:
        width: bytes of a parameter.
        zeros: how many of the weights that stay are 0.
        gone: their whole layer goes.
    """
    kept = len(found.kept)
    parameters = Change(units.parameters(units.count), 0 if gone else units.parameters(kept))
    return Row(
        units.layer,
        units.path,
        units.kind,
        Change(units.count, kept),
        zeros,
        parameters,
        Change(parameters.before * width, parameters.after * width),
        Change(_macs(units, units.count), _macs(units, kept)),
        found.shift is not None,
    )


def _macs(units: Units, kept: int) -> int:
    """Multiplications for one token of a text of :data:`LENGTH` tokens, which both streams have."""
    return round(units.macs(kept, {"encoder": LENGTH, "decoder": LENGTH}) / LENGTH)


def total(changes: Sequence[Change]) -> Change:
    """Their sum."""
    return sum(changes, Change(0, 0))
