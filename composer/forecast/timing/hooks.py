"""Hooks of the real training loop that keep the seconds of each step, and validate nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...training.hooks import TrainingHooks
from ...training.joint import JointHooks
from ...training.model import MaskedHooks

if TYPE_CHECKING:
    from torch import nn


class TimedHooks(TrainingHooks):
    """Mixed in before the hooks of a training loop.

    Args:
        hooks: what those are made with.
        synchronised: waits until the device has done its work; a step has begun, and ended, only then.
    """

    def __init__(self, *hooks: Any, synchronised: Callable[[], None]) -> None:
        super().__init__(*hooks)
        self.synchronised = synchronised
        self.each: list[float] = []

    def measure(self, model: nn.Module, step: int) -> float:
        """All weights are as good as those of the start, which therefore are restored."""
        return 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.synchronised()
        super().on_step_begin(args, state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.synchronised()
        before = self.train_seconds
        control = super().on_step_end(args, state, control, **kwargs)
        self.each.append(self.train_seconds - before)
        return control


class TimedAlone(TimedHooks, MaskedHooks):
    """Steps of one whole model."""


class TimedTogether(TimedHooks, JointHooks):
    """Steps of all configurations together."""
