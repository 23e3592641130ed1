"""What a block trainer must be able to do, and the error that all of them lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from ...progress import Progress
from ...scheme.layout import Block
from ...tensors.least_squares import SOLVER

if TYPE_CHECKING:
    from ...calibration.teacher import Teacher

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
    calibration_size: int = 512
    damping: float = 0.01
    evaluations: int = 4
    start: str = "repaired"
    solver: int = field(default=SOLVER, init=False)
    """No choice: which solver made the closed forms, so that blocks of an older one are not taken for this one's."""

    def lineage(self, fields: tuple[str, ...]) -> dict[str, Any]:
        """The settings that take part in an address."""
        return {name: value for name, value in asdict(self).items() if name in ("trainer", "seed", *fields)}


@dataclass(frozen=True, eq=False)
class Job:
    """A block to tune.

    Attributes:
        name: the node's hash.
        start: all parameters that the block owns, by name; ``masks`` those of its pruned ones (True: kept).
        upstream: what the inputs of the last projection depend on inside the block. Jobs of one wave with equal
            block and ``upstream`` have equal inputs there.
        live: which columns of the base model's own input of the last projection it reads, (in,) bool, where that is
            all that pruning changes there: nothing before a single projection, heads before an out-projection.
    """

    name: str
    block: Block
    start: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    upstream: str
    live: Tensor | None = None


@dataclass(frozen=True)
class Look:
    """One measurement of a block while it is tuned; errors are relative, seconds the block's own share so far."""

    step: int
    epoch: float
    train_loss: float | None
    valid_loss: float | None
    train_seconds: float
    valid_seconds: float


@dataclass(frozen=True)
class Tuned:
    """A finished block: its weights, and what was seen on the way."""

    weights: Mapping[str, Tensor]
    looks: Sequence[Look] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The block's share of all work."""
        return self.looks[-1].train_seconds + self.looks[-1].valid_seconds if self.looks else 0.0


def relative_error(got: Tensor, wanted: Tensor) -> Tensor:
    """``|got - wanted|^2 / |wanted|^2`` over all real tokens; blocks of all depths weigh alike.

    Both (tokens, width). A block whose base output is all zero gives the plain squared error.
    """
    scale = wanted.pow(2).sum()
    return (got - wanted).pow(2).sum() / scale.clamp_min(1e-30 if scale > 0 else 1.0)


class BlockTrainer(Protocol):
    """Tunes the independent blocks of one wave.

    A block's result depends on the block alone (its start, masks and settings), never on its neighbours.
    """

    fields: tuple[str, ...]
    """The settings that shape a tuned block's bytes."""
    in_context: bool
    """Whether all configurations then learn as one network, from the blocks that the closed forms made."""

    @classmethod
    def tune(
        cls, jobs: Sequence[Job], teacher: Teacher, settings: BlockSettings, *, label: str, progress: Progress
    ) -> Iterator[tuple[Job, Tuned]]:
        """Yield each job as soon as it is finished; the receiver stores it."""
        ...
