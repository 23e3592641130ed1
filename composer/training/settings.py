"""What a model's training is given, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from ..parallel.ranks import rank_and_size

if TYPE_CHECKING:
    from .own_parts import OwnPart

Part = Literal["all", "biases-norms", "lora"]
"""Which part of a model learns (:mod:`.learning_part`)."""
Own = Literal["none", "biases-norms", "lora"]
"""What each configuration has of its own in joint tuning (:mod:`.own_parts`)."""
Keep = Literal["best", "last"]
"""Which weights of a training are kept."""
RANK, SCALE = 8, 2
"""Of low-rank updates ``s·BA``."""


@dataclass(frozen=True)
class ModelSettings:
    """Everything beside data and start that changes a fine-tuned model's bytes."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip: float
    evaluations: int
    seed: int
    precision: str
    distill: float = 0.0
    train: Part = "all"
    own: Own = "none"
    own_rate: float = 0.0
    temperature: float = 1.0
    hidden: float = 0.0
    teacher: str = ""
    """Fingerprint of whose answers are learnt; empty for the base model's."""
    dropout: bool = True
    group_by_length: bool = False
    keep: Keep = "best"
    """Weights of the lowest validation loss, or those after the last step."""

    @property
    def has_teacher(self) -> bool:
        """Whether answers or hidden states of a teacher are learnt."""
        return bool(self.distill or self.hidden)

    @property
    def taught(self) -> dict[str, Any]:
        """What identifies the teacher's part; empty without one."""
        names = ("distill", "temperature", "hidden", "teacher")
        return {name: value for name, value in _said(self).items() if name in names}


def identity_of(settings: ModelSettings) -> dict[str, Any]:
    """What identifies a run: the settings, and how many processes learn together, each a batch of its own.

    An option that is off is as if it did not exist.
    """
    processes = rank_and_size()[1]
    return _said(settings) | ({"processes": processes} if processes > 1 else {})


def _said(settings: ModelSettings) -> dict[str, Any]:
    """All but options that are as they are where nobody says anything; those without such a default always."""
    off = {one.name: one.default for one in fields(settings)}
    return {name: value for name, value in asdict(settings).items() if value != off[name]}


@dataclass
class ModelTuning:
    """What happened: rows of ``stats/*.csv`` (step 0 first), and the loss of the weights that were kept.

    A loss that is no finite number (the run diverged) is None in the rows.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float = float("inf")
    best_step: int = 0
    part: dict[str, Any] = field(default_factory=dict)
    """How much of the model learnt (:class:`.learning_part.LearningPart`)."""
    own: Sequence[OwnPart] = ()
    """What each configuration has learnt of its own, if anything (:mod:`.own_parts`)."""
    stays: Sequence[int] = ()
    """Configurations that are better as they began than with what all have learnt (:mod:`.joint`)."""

    @property
    def first_loss(self) -> float:
        """Validation loss before any step."""
        return float(self.rows[0]["valid_loss"])

    @property
    def broke(self) -> int | None:
        """The first step at which the validation loss was no finite number; None for a run that learnt throughout."""
        return next((int(row["step"]) for row in self.rows if row["valid_loss"] is None), None)

    @property
    def train_seconds(self) -> float:
        """Seconds spent in optimiser steps, validation and checkpoints not counted."""
        return float(self.rows[-1]["train_seconds"])


def broke_text(label: str, step: int) -> str:
    """What a user should know of a run that has diverged."""
    return (
        f"{label}: training broke: the loss is no finite number at step {step}; the best weights before it are kept; "
        "give a lower --learning-rate"
    )


def finite(loss: float | None) -> float | None:
    """None for the loss of a run that has diverged: JSON and CSV have no NaN."""
    return loss if loss is not None and math.isfinite(loss) else None
