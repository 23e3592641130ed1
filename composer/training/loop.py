"""Training whole models through the Hugging Face Trainer: the loop, validation, checkpoints, resuming.

What is trained, and what is done around each step, is said by a subclass of :class:`TrainingHooks`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..errors import ModelError
from ..files.atomic import replacing
from ..files.jsonfile import write_json
from ..parallel.ranks import is_main_process, rank_and_size, wait_for_all
from ..progress import Bar
from ..tensors.parameters import parameters_of, set_values, unwrapped
from .distillation import Answers
from .settings import ModelSettings, ModelTuning, finite

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..tasks.task import Examples, Task


def train_whole(
    model: nn.Module, task: Task, train: Examples, hooks: TrainingHooks, answers: Answers | None = None
) -> ModelTuning:
    """Train ``model`` in place, and leave the weights with the lowest validation loss in it.

    A run that finds a checkpoint in the hooks' work folder goes on from it; the caller deletes the folder. Step 0
    counts as a candidate, so the result is never worse than the start.
    """
    with quiet():
        trainer = WholeTrainer(task, model, arguments(hooks.settings, hooks.work, model), train, hooks, answers)
        checkpoint = hooks.resume()
        if not hooks.out_of_patience:  # it may have been killed after its last step
            trainer.train(resume_from_checkpoint=checkpoint)
        hooks.restore_best(model)
    wait_for_all()  # the caller may delete the work folder
    return hooks.result


class WholeTrainer(Trainer):
    """The Hugging Face Trainer with the task's own loss."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        args: TrainingArguments,
        train: Examples,
        hooks: TrainingHooks,
        answers: Answers | None,
    ) -> None:
        self.task, self.hooks, self.answers = task, hooks, answers
        with _own_config_hidden(model):
            super().__init__(
                model=model,
                args=args,
                train_dataset=list(train.features),
                data_collator=task.collate,
                callbacks=[hooks],
            )
        self.remove_callback(transformers.PrinterCallback)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the batch's real tokens or examples."""
        loss = self.answers.loss(model, inputs) if self.answers else self.task.loss(model, inputs)[0]
        self.hooks.losses.append(loss.detach())
        return (loss, {}) if return_outputs else loss


class TrainingHooks(TrainerCallback, ABC):
    """What happens around the steps of a training: validation on schedule, the best weights, the rows of the table.

    A subclass says what is trained. In each step come :meth:`before_step`, the forward and backward pass, clipping,
    :meth:`before_update`, the optimiser and :meth:`after_update`. When :meth:`before_update` is called the Trainer has
    clipped already, by a norm in which gradients of removed weights would count: they are masked as they arise, by
    hooks on the parameters (:func:`composer.tensors.masks.gradients_masked`).
    """

    def __init__(self, settings: ModelSettings, work: Path, bar: Bar, patience: int | None = None) -> None:
        """See above.

        Args:
            work: folder for checkpoints.
            patience: end training after so many evaluations without a better one.
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
        """The last whole checkpoint in the work folder, with the rows up to it."""
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
        if state.global_step == 0:
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
        """Load the best weights into ``model``; after a resume they may lie in the work folder only."""
        from safetensors.torch import load_file

        set_values(parameters_of(model), self.best or load_file(self._best_file))
        model.eval()

    @property
    def _best_file(self) -> Path:
        return self.work / "best.safetensors"

    def _validate(self, model: nn.Module, step: int, epoch: float) -> None:
        began = time.perf_counter()
        loss = self.measure(unwrapped(model), step)
        self.valid_seconds += time.perf_counter() - began
        train = torch.stack(self.losses).mean().item() if self.losses else None
        self.losses.clear()
        if step == 0 and not math.isfinite(loss):
            raise ModelError(f"the model's validation loss before any step is {loss}; it cannot be fine-tuned")
        if loss < self.result.best_loss:
            self.result.best_loss, self.result.best_step, self.stale = loss, step, -1
            self.best = {name: p.detach().to("cpu", copy=True) for name, p in parameters_of(model).items()}
            self._save_best()
        self.stale += 1
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


def arguments(settings: ModelSettings, work: Path, model: nn.Module) -> TrainingArguments:
    device = next(model.parameters()).device
    if device.type == "cuda" and device.index:
        torch.cuda.set_device(device)
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        seed=settings.seed,
        bf16=settings.precision == "bf16",
        use_cpu=device.type == "cpu",
        save_strategy="steps",
        save_steps=settings.steps + 1,  # the hooks say when
        save_total_limit=2,  # the newest is whole only once the hooks have written their record
        eval_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=device.type == "cuda",
    )
    if rank_and_size()[1] == 1 and device.type == "cuda":
        arguments._n_gpu = 1  # one process uses one GPU: the Trainer would multiply the batch by all that it sees
    return arguments


@contextmanager
def _own_config_hidden(model: nn.Module) -> Iterator[None]:
    """The Trainer writes ``use_cache`` into whatever is called ``config``, also where that is not transformers'."""
    held = {} if isinstance(model, transformers.PreTrainedModel) else vars(model)
    config = held.pop("config", None)
    try:
        yield
    finally:
        if config is not None:
            held["config"] = config


@contextmanager
def quiet() -> Iterator[None]:
    """The Trainer's own messages are about things that the hooks have settled."""
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    accelerate = logging.getLogger("accelerate")
    before = accelerate.level
    accelerate.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(level)
        accelerate.setLevel(before)
