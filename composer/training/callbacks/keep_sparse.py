"""``KeepSparse``: a callback that holds a pruned model's zeros in anybody's Trainer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler
from transformers.utils import logging

from ...errors import ModelError
from .holding import Sparsity, sparsity_of

logger = logging.get_logger("composer")


class Reporting(TrainerCallback):
    """A callback whose figures stand in all that the Trainer logs to."""

    def figures(self) -> dict[str, float]:
        """Name -> value, at the time of a log entry; empty for nothing."""
        return {}

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the figures to the entry, and to what has been told of it already.

        The Trainer calls those that report (TensorBoard and the like) before the callbacks that it was given, so they
        have seen the entry without them; they are known to nobody but the handler that calls this.
        """
        if not (extra := self.figures()):
            return
        logs = kwargs.pop("logs", None)
        if logs is not None:
            logs |= extra
        if state.log_history:
            state.log_history[-1] |= extra
        handler = sys._getframe(1).f_locals.get("self")
        for earlier in handler.callbacks if isinstance(handler, CallbackHandler) else ():
            if earlier is self:
                return
            if type(earlier).__module__.startswith("transformers.integrations"):
                earlier.on_log(args, state, control, logs=dict(extra), **kwargs)


class KeepSparse(Reporting):
    """Holds the zeros of a pruned model while it is trained: ``Trainer(…, callbacks=[KeepSparse()])``.

    Works with whatever derives from the Trainer, with any optimiser, accumulation, mixed precision, ``torch.compile``,
    checkpoints and resuming, the best model loaded at the end, and DDP. It says at the start how many zeros it holds,
    makes sure of them at every save and at the end, and adds ``sparsity`` to the logs.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        """Nothing is looked at before the training begins.

        Args:
            folder: a pruned model whose zeros are held in the model that is trained; None: those that it has.
        """
        self.folder = folder
        self._held: Sparsity | None = None

    @property
    def held(self) -> Sparsity:
        """What is held.

        Raises:
            ModelError: the training has not begun.
        """
        if self._held is None:
            raise ModelError("KeepSparse: nothing is held before the training begins")
        return self._held

    def figures(self) -> dict[str, float]:
        """Sparsity of all targets, and by kind."""
        return self._held.figures() if self._held else {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._held:  # a second training with the same callback
            self._held.holder.detach()
        refuse_distributed(args)
        self._held = sparsity_of(kwargs["model"], self.folder)
        self._held.holder.attach()
        if state.is_world_process_zero:
            logger.warning(f"KeepSparse: {self._held}")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.held.holder.apply()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.held.holder.check(f"checkpoint of step {state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.held.holder.check("end of the training")
        self.held.holder.detach()


def refuse_distributed(args: Any) -> None:
    """Refuse arguments of the Trainer by which parameters are spread over processes.

    Raises:
        ModelError: naming the argument.
    """
    if getattr(args, "fsdp", None):
        raise ModelError("fsdp: parameters are spread over processes, and masks are not; use DDP, or one process")
    plugin = getattr(args, "deepspeed_plugin", None)
    if plugin is not None and getattr(plugin, "zero_stage", 0) == 3:
        raise ModelError("deepspeed: ZeRO-3 spreads parameters over processes, and masks are not; use stage 1 or 2")
