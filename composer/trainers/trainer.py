"""What a block trainer must be able to do, and the error that all of them lower."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

Run = Callable[[Mapping[str, Tensor]], Tensor]
"""Runs the block with the given parameters: its output at real tokens, (tokens, width)."""


def relative_error(got: Tensor, wanted: Tensor) -> Tensor:
    """``|got - wanted|^2 / |wanted|^2`` over all real tokens; blocks of all depths weigh alike.

    Both (tokens, width). A block whose base output is all zero gives the plain squared error.
    """
    scale = wanted.pow(2).sum()
    return (got - wanted).pow(2).sum() / scale.clamp_min(1e-30 if scale > 0 else 1.0)


class BlockTrainer(Protocol):
    """Tunes one block; one teacher pass feeds all trainers of a wave."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        *,
        learning_rate: float,
        steps: int,
    ) -> None:
        """Start from ``parameters`` (copied); ``masks`` are held throughout."""
        ...

    def step(self, run: Run, wanted: Tensor) -> float:
        """One step on one batch; returns the error before it."""
        ...

    def error(self, run: Run, wanted: Tensor) -> float:
        """The error with the current parameters; nothing changes."""
        ...

    def finish(self) -> dict[str, Tensor]:
        """The tuned parameters."""
        ...
