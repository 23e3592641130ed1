"""What a block trainer must be able to do and say of itself, and the error that all of them lower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

from ...progress import Progress
from ...scheme.layout import Block, Target
from ...tensors.least_squares import SOLVER
from ..work import LEARNING, BlockWaves, Work, most

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
    calibration_lengths: str = "train"
    metric: str = "plain"
    solver: int = field(default=SOLVER, init=False)
    """No choice: which solver made the closed forms, so that blocks of an older one are not taken for this one's."""

    def lineage(self, fields: tuple[str, ...]) -> dict[str, Any]:
        """The settings that take part in an address."""
        told = {name: value for name, value in asdict(self).items() if name in ("trainer", "seed", *fields)}
        if "calibration_size" not in fields:
            return told
        # What was meant before there was a choice is not named: addresses of blocks made with it stay what they were.
        chosen = {"calibration_lengths": (self.calibration_lengths, "train"), "metric": (self.metric, "plain")}
        return told | {name: value for name, (value, unsaid) in chosen.items() if value != unsaid}


class Start(NamedTuple):
    """Where a block starts: all parameters that it owns, by name, and the masks of its pruned ones (True: kept)."""

    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]


@dataclass(eq=False)
class Job:
    """A block to tune. What it starts from is loaded when it is first asked for, and until :meth:`close` is kept.

    Attributes:
        name: the node's hash.
        load: loads what the block starts from.
        upstream: what the inputs of the last projection depend on inside the block. Jobs of one wave with equal
            block and ``upstream`` have equal inputs there.
        units: the heads or neurons that are pruned before the last projection, where nothing else is: it then reads
            the base model's own inputs, without their columns. None where other weights are pruned there.
    """

    name: str
    block: Block
    load: Callable[[], Start]
    upstream: str
    units: tuple[Target, ...] | None = None

    @cached_property
    def _start(self) -> Start:
        return self.load()

    @property
    def start(self) -> Mapping[str, Tensor]:
        """All parameters that the block owns, by name."""
        return self._start.weights

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Those of its pruned parameters (True: kept)."""
        return self._start.masks

    def close(self) -> None:
        """Let go of what was loaded."""
        self.__dict__.pop("_start", None)


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
    """Tunes the independent blocks of one wave, and says of itself what others must know: none is asked for by name.

    A block's result depends on the block alone (its start, masks and settings), never on its neighbours. A trainer
    derives from this class, or from :class:`.stepping.Stepping`; it must have ``fields`` and ``tune``.
    """

    fields: tuple[str, ...]
    """The settings that shape a tuned block's bytes."""
    takes_steps: bool = False
    """Whether blocks learn by optimiser steps: then each :class:`Look` counts those that were taken."""
    in_context: bool = False
    """Whether all configurations learn as one network (:mod:`composer.training.joint`) after the waves."""

    @classmethod
    def starts_from(cls, settings: BlockSettings) -> str | None:
        """Of a trainer ``in_context``: the one whose blocks configurations begin to learn from.

        That one tunes the waves, under its own name in addresses. None: configurations begin from the pruned variants
        as they are, and no wave is run.
        """
        return None

    @classmethod
    def tune(
        cls, jobs: Sequence[Job], teacher: Teacher, settings: BlockSettings, *, label: str, progress: Progress
    ) -> Iterator[tuple[Job, Tuned]]:
        """Yield each job as soon as it is finished; the receiver stores it."""
        ...

    @classmethod
    def work(cls, blocks: BlockWaves, settings: BlockSettings) -> Iterator[Work]:
        """What tuning these blocks takes, files not counted.

        As long as a trainer says nothing else, one piece for each block: `compose plan --time` then tunes a block of
        each size. That is too much where blocks of a wave share work, as a pass of the base model. Pieces are those of
        :data:`composer.training.work.Unit`; ``learn`` and ``look`` can only be tried of a :class:`.stepping.Stepping`.
        """
        for node in blocks.nodes:
            yield Work("block", 1, (blocks.like(node),), blocks.sizes.weights(node))

    @classmethod
    def memory(cls, blocks: BlockWaves, settings: BlockSettings) -> int:
        """Bytes at the peak, beside the base model and the tuned blocks of a wave.

        As long as a trainer says nothing else: all blocks of a wave learn at once by AdamW, and keep the best weights.
        """
        return most([(LEARNING + 1) * blocks.sizes.weights(node) for node in wave] for wave in blocks.waves)
