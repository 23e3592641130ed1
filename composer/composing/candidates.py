"""Configurations of one base model, each put together for a moment to be measured: pruned, repaired in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..scheme.configurations import Assignment
from ..tasks.loss import mean_loss
from ..tensors.parameters import replaced
from .model_pruner import ModelPruner

if TYPE_CHECKING:
    from torch import nn

    from ..calibration.sample import Calibration
    from ..tasks.task import Examples, Task


class Candidates:
    """Models of any widths; moments and scores are gathered once."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        calibration: Calibration,
        criterion: str,
        *,
        damping: float,
        seed: int,
        dead_columns: bool = True,
    ) -> None:
        """Nothing is gathered yet.

        Args:
            model: the base model; its weights are what they were after each call.
            criterion: decides which units go.
            damping, seed, dead_columns: as for :class:`.model_pruner.ModelPruner`.
        """
        self.model, self.task, self.criterion = model, task, criterion
        self.parameters = dict(model.named_parameters())
        self.pruner = ModelPruner(
            calibration.layout, self.parameters, calibration, damping=damping, seed=seed, dead_columns=dead_columns
        )

    def loss(self, assigned: Assignment, examples: Examples) -> dict[str, float]:
        """Loss and main metric of a configuration on a split."""
        weights = self.pruner.prune(assigned, self.criterion, repair=True)[0] if assigned else {}
        with replaced(self.parameters, weights):
            score = self.task.score(self.model, examples)
            loss = score.loss if score.loss is not None else mean_loss(self.model, self.task, examples)
        return {"loss": loss, self.task.main_metric: score.metrics[self.task.main_metric]}
