"""Training whole models through the Hugging Face Trainer.

What is trained, and what is done around each step, is said by a subclass of :class:`.hooks.TrainingHooks`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from ..parallel.ranks import rank_and_size, wait_for_all
from ..progress import log_level
from ..tasks.task import input_lengths
from ..tensors.batches import grouped_by_length
from .distillation import Answers
from .hooks import TrainingHooks
from .own_parts import own_rate
from .settings import ModelSettings, ModelTuning

if TYPE_CHECKING:
    from torch import nn

    from ..tasks.task import Examples, Task

NUMBER = "example_number"
"""Of a training example, where a teacher's answers are kept by it."""


def train_whole(
    model: nn.Module, task: Task, train: Examples, hooks: TrainingHooks, answers: Answers | None = None
) -> ModelTuning:
    """Train ``model`` in place, and leave the weights in it that are kept: of the lowest validation loss, or the last.

    A run that finds a checkpoint in the hooks' work folder goes on from it; the caller deletes the folder. Step 0
    counts as a candidate, so a result that is kept by its loss is never worse than the start.
    """
    with quiet():
        trainer = WholeTrainer(task, model, arguments(hooks.settings, hooks.work, model), train, hooks, answers)
        if answers:
            answers.begin(model, train)
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
        data: list[Any] = list(train.features)
        collate: Callable[..., Any] = task.collate
        if answers and answers.kept is not None:
            data = [{**feature, NUMBER: number} for number, feature in enumerate(data)]
            collate = partial(_numbered, task)
        with _own_config_hidden(model):
            super().__init__(
                model=model,
                args=args,
                train_dataset=data,
                data_collator=collate,
                callbacks=[AnswersKept(answers), hooks],
            )
        self.remove_callback(transformers.PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The Trainer's own, or examples in batches of like lengths."""
        settings = self.hooks.settings
        if not settings.group_by_length:
            return super()._get_train_sampler(train_dataset)
        lengths = input_lengths(train_dataset if train_dataset is not None else self.train_dataset)
        return GroupedByLength(lengths, settings.batch_size, settings.seed)

    def create_optimizer(self, model: Any = None) -> Any:
        """The Trainer's own; what configurations own learns at a rate of its own."""
        optimizer = super().create_optimizer(model)
        own_rate(optimizer, self.model, self.hooks.settings.own_rate)
        return optimizer

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the batch's real tokens or examples."""
        if not self.hooks.settings.dropout:
            model.eval()  # the Trainer has just said train()
        numbers = inputs.pop(NUMBER).tolist() if NUMBER in inputs else None
        loss = self.answers.loss(model, inputs, numbers) if self.answers else self.task.loss(model, inputs)[0]
        self.hooks.losses.append(loss.detach())
        return (loss, {}) if return_outputs else loss


class GroupedByLength(Sampler[int]):
    """The order of an epoch's examples by :func:`.grouped_by_length`; the Trainer says which epoch begins."""

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self.lengths, self.size, self.seed, self.epoch = lengths, size, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate's loader."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(grouped_by_length(self.lengths, self.size, seed=self.seed, epoch=self.epoch))


class AnswersKept(TrainerCallback):
    """Writes a teacher's answers with every checkpoint, so that a run that goes on from it has those of before."""

    def __init__(self, answers: Answers | None) -> None:
        self.kept = answers.kept if answers else None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.kept is not None:
            self.kept.save()

    on_train_end = on_save


def _numbered(task: Task, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch, with the numbers of its examples."""
    batch = task.collate([{name: value for name, value in f.items() if name != NUMBER} for f in features])
    return {**batch, NUMBER: torch.tensor([feature[NUMBER] for feature in features])}


def arguments(settings: ModelSettings, work: Path, model: nn.Module) -> TrainingArguments:
    """The Trainer's arguments: it validates, logs and reports nothing, and saves when the hooks say so."""
    device = next(model.parameters()).device
    if device.type == "cuda" and device.index:
        torch.cuda.set_device(device)  # no argument says which: the Trainer takes the current one
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
    attributes = {} if isinstance(model, transformers.PreTrainedModel) else vars(model)
    config = attributes.pop("config", None)
    try:
        yield
    finally:
        if config is not None:
            attributes["config"] = config


@contextmanager
def quiet() -> Iterator[None]:
    """The Trainer's own messages are about things that the hooks have settled."""
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        with log_level("accelerate", logging.ERROR):
            yield
    finally:
        transformers.utils.logging.set_verbosity(level)
