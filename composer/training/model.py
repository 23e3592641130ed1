"""Model-level fine-tuning: a whole model on its task, with masks held.

The same code trains composed models, baselines and the dense model. Masks come from the caller (the
library's files), are applied after every optimiser step and stand in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import SILENT, Bar, Progress
from ..tasks.loss import mean_loss
from ..tasks.task import Examples, Task
from ..tensors.mask_holder import MaskHolder
from ..tensors.parameters import parameters_of
from .distillation import Answers
from .hooks import TrainingHooks
from .learning_part import learning
from .loop import train_whole
from .settings import ModelSettings, ModelTuning, finite

if TYPE_CHECKING:
    from torch import Tensor, nn


def tune_model(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    task: Task,
    train: Examples,
    valid: Examples,
    settings: ModelSettings,
    *,
    work: Path,
    answers: Answers | None = None,
    modules: Sequence[str] = (),
    label: str = "fine-tune",
    progress: Progress = SILENT,
) -> ModelTuning:
    """Fine-tune ``model`` in place and leave the weights with the lowest validation loss in it.

    Args:
        masks: parameter name -> keep-mask (empty for a dense model).
        work: folder for checkpoints; a run that finds one there goes on from it. The caller deletes it.
        answers: the base model's answers, to be learnt beside the labels.
        modules: that low-rank updates are for, where those learn.

    Returns:
        The rows and the best loss; step 0 counts as a candidate, so the result is never worse than the start.
    """
    holder = MaskHolder(parameters_of(model), masks)
    with learning(model, settings.train, modules, settings.seed) as part, holder:
        with progress.bar(label, settings.steps) as bar:
            hooks = MaskedHooks(task, valid, holder, settings, work, bar)
            tuned = train_whole(model, task, train, hooks, answers)
        tuned.part = part.plain()
    holder.check("fine-tuned")
    return tuned


def untrained(model: nn.Module, task: Task, valid: Examples) -> ModelTuning:
    """What is known of a model that takes no step."""
    loss, nothing = mean_loss(model, task, valid), {"train_loss": None, "train_seconds": 0.0, "valid_seconds": 0.0}
    return ModelTuning([{"step": 0, "epoch": 0.0, "valid_loss": finite(loss), **nothing}], loss)


class MaskedHooks(TrainingHooks):
    """Removed weights stay removed.

    Their gradients are masked while this loop runs, and after every update they are set to exactly 0
    (:class:`composer.tensors.mask_holder.MaskHolder`). Validation and checkpoints come after that.
    """

    def __init__(
        self,
        task: Task,
        valid: Examples,
        holder: MaskHolder,
        settings: ModelSettings,
        work: Path,
        bar: Bar,
    ) -> None:
        super().__init__(settings, work, bar)
        self.task, self.valid, self.holder = task, valid, holder

    def measure(self, model: nn.Module, step: int) -> float:
        """Mean loss on the validation split."""
        return mean_loss(model, self.task, self.valid)

    def after_update(self, model: nn.Module) -> None:
        """Set removed weights to exactly 0 again."""
        self.holder.apply()
