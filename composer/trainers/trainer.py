"""What a block trainer must be able to do, and the error that all of them lower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from torch import Tensor

from ..layout import Projection

Run = Callable[[Mapping[str, Tensor]], Tensor]
"""Runs the block with the given parameters: its output at real tokens, (tokens, width)."""


@dataclass(frozen=True)
class BlockSettings:
    """What the user may set for blocks; each trainer says which of it shapes its bytes."""

    trainer: str
    steps: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    calibration_size: int = 2048
    damping: float = 0.01

    def lineage(self, fields: tuple[str, ...]) -> dict[str, Any]:
        """The settings that take part in an address."""
        return {name: value for name, value in asdict(self).items() if name in ("trainer", "seed", *fields)}


class Lesson(Protocol):
    """One batch for one block: callable like :data:`Run`, and able to look inside."""

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The block's output at real tokens, (tokens, width)."""
        ...

    def probe(self, parameters: Mapping[str, Tensor], path: str) -> tuple[Tensor, Tensor]:
        """What the projection at ``path`` reads, (tokens, in), and the block's output, (tokens, width)."""
        ...


def relative_error(got: Tensor, wanted: Tensor) -> Tensor:
    """``|got - wanted|^2 / |wanted|^2`` over all real tokens; blocks of all depths weigh alike.

    Both (tokens, width). A block whose base output is all zero gives the plain squared error.
    """
    scale = wanted.pow(2).sum()
    return (got - wanted).pow(2).sum() / scale.clamp_min(1e-30 if scale > 0 else 1.0)


class BlockTrainer(Protocol):
    """Tunes one block; one teacher pass feeds all trainers of a wave."""

    fields: tuple[str, ...]
    """The settings that shape a tuned block's bytes."""

    @classmethod
    def plan(cls, settings: BlockSettings) -> tuple[int, int]:
        """How many batches a block sees, and after how many of them it is validated."""
        ...

    @classmethod
    def start(
        cls, parameters: Mapping[str, Tensor], masks: Mapping[str, Tensor], last: Projection, settings: BlockSettings
    ) -> Self:
        """Start from ``parameters`` (copied); ``masks`` are held throughout; ``last`` ends the block."""
        ...

    def step(self, run: Any, wanted: Tensor) -> float:
        """Learn from one batch (a :class:`Lesson`); returns the error before it."""
        ...

    def error(self, run: Run, wanted: Tensor) -> float:
        """The error with the current parameters; nothing changes."""
        ...

    def finish(self) -> dict[str, Tensor]:
        """The tuned parameters."""
        ...
