"""What happens around the steps of a training: validation on schedule, the best weights, checkpoints, resuming."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from ..errors import ModelError
from ..files.atomic import replacing
from ..files.jsonfile import write_json
from ..parallel.ranks import is_main_process
from ..progress import Bar
from ..tensors.parameters import parameters_of, set_values, unwrapped
from .settings import ModelSettings, ModelTuning, finite

if TYPE_CHECKING:
    from torch import Tensor, nn


class TrainingHooks(TrainerCallback, ABC):
    """Validates on schedule, keeps the best weights, writes the rows of the table and what a resumed run needs.

    A subclass says what is trained. In each step come :meth:`before_step`, the forward and backward pass, clipping,
    :meth:`before_update`, the optimiser and :meth:`after_update`. When :meth:`before_update` is called the Trainer has
    clipped already, by a norm in which gradients of removed weights would count: they are masked as they arise, by
    hooks on the parameters (:class:`composer.tensors.mask_holder.MaskHolder`).
    """

    def __init__(self, settings: ModelSettings, work: Path, bar: Bar, patience: int | None = None) -> None:
        """Nothing is measured before the training begins.

        Args:
            work: folder for checkpoints.
            patience: end training after so many evaluations without a better one; None never ends it early.
        """
        self.settings, self.work, self.bar, self.patience = settings, work, bar, patience
        self.extra: dict[str, Any] = {}
        self.stale = 0
        self.every = max(1, -(-settings.steps // settings.evaluations))
        self.result = ModelTuning()
        self.losses: list[Tensor] = []
        self.best: dict[str, Tensor] = {}
        self.train_seconds = self.valid_seconds = self.began = 0.0

    @property
    def out_of_patience(self) -> bool:
        """Whether so many evaluations brought nothing better that training ends."""
        return self.patience is not None and self.stale >= self.patience

    @abstractmethod
    def measure(self, model: nn.Module, step: int) -> float:
        """The validation loss of ``model`` as it is after ``step`` steps."""

    def before_step(self, model: nn.Module, step: int) -> None:
        """Called before the forward pass of each step (counted from 0)."""

    def before_update(self, model: nn.Module) -> None:
        """Called when gradients have been clipped, before the optimiser moves weights by them."""

    def after_update(self, model: nn.Module) -> None:
        """Called when the optimiser has moved the weights."""

    def resume(self) -> str | None:
        """Take up the last whole checkpoint in the work folder and return its path; None where there is none.

        A checkpoint is whole when it has the Trainer's record and ours, which is written last (:meth:`on_save`). A run
        that was killed in between goes on from the one before, and measures again what it had measured since: by the
        same batches, so with the same result.
        """
        checkpoints = sorted(self.work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        for path in reversed(checkpoints):
            record = path / "composer.json"
            if (path / "trainer_state.json").is_file() and record.is_file():
                state = json.loads(record.read_text())
                self.result.rows = state["rows"]
                self.result.best_loss, self.result.best_step = state["best_loss"], state["best_step"]
                self.train_seconds, self.valid_seconds = state["train_seconds"], state["valid_seconds"]
                self.extra, self.stale = state["extra"], state["stale"]
                return str(path)
        return None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:  # a resumed run has this row already
            self._validate(kwargs["model"], 0, 0.0)
        for _ in range(state.global_step):
            self.bar.advance("resumed")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()
        self.before_step(unwrapped(kwargs["model"]), state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.before_update(unwrapped(kwargs["model"]))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.after_update(unwrapped(kwargs["model"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.train_seconds += time.perf_counter() - self.began
        last = state.global_step == state.max_steps
        if state.global_step % self.every == 0 or last:
            self._validate(kwargs["model"], state.global_step, state.epoch or 0.0)
            # Only here, where losses have just been added up: a resumed run lacks none. After the last step the caller
            # stores the result itself.
            control.should_save = not last
            control.should_training_stop |= self.out_of_patience
        loss = self.result.rows[-1]["valid_loss"]
        self.bar.advance("diverged" if loss is None else f"validation loss {loss:.4f}")
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_json(
                self.work / f"checkpoint-{state.global_step}" / "composer.json",
                {
                    "rows": self.result.rows,
                    "best_loss": self.result.best_loss,
                    "best_step": self.result.best_step,
                    "train_seconds": self.train_seconds,
                    "valid_seconds": self.valid_seconds,
                    "extra": self.extra,
                    "stale": self.stale,
                },
            )

    def restore_best(self, model: nn.Module) -> None:
        """Load the weights that are kept into ``model``; after a resume they may lie in the work folder only."""
        from safetensors.torch import load_file

        set_values(parameters_of(model), self.best or load_file(self._best_file))
        model.eval()

    @property
    def _best_file(self) -> Path:
        return self.work / "best.safetensors"

    def _validate(self, model: nn.Module, step: int, epoch: float) -> None:
        began = time.perf_counter()
        loss = self.measure(unwrapped(model), step)  # may look at the losses of the steps since the last one
        self.valid_seconds += time.perf_counter() - began
        train = torch.stack(self.losses).mean().item() if self.losses else None
        self.losses.clear()
        if step == 0 and not math.isfinite(loss):
            raise ModelError(f"the model's validation loss before any step is {loss}; it cannot be fine-tuned")
        self.stale += 1
        if loss < self.result.best_loss or (self.settings.keep == "last" and math.isfinite(loss)):
            self.result.best_loss, self.result.best_step, self.stale = loss, step, 0
            self.best = {name: p.detach().to("cpu", copy=True) for name, p in parameters_of(model).items()}
            self._save_best()
        self.result.rows.append(
            {
                "step": step,
                "epoch": round(epoch, 4),
                "train_loss": finite(train),
                "valid_loss": finite(loss),
                "train_seconds": round(self.train_seconds, 3),
                "valid_seconds": round(self.valid_seconds, 3),
            }
        )

    def _save_best(self) -> None:
        from safetensors.torch import save_file

        if not is_main_process():
            return
        with replacing(self._best_file) as temporary:
            save_file(self.best, temporary)
