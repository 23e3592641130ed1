"""What a part of a model costs the loss at every width, as published: Fisher information of masks, nothing repaired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..progress import SILENT, Progress
from ..shrinking.units import Units
from ..tensors.forward import answering, to_device_of
from .gradients import Gates
from .rises import by_width

if TYPE_CHECKING:
    from ..tasks.task import Task
    from .sample import Calibration


def fisher_by_width(
    model: nn.Module, task: Task, calibration: Calibration, parts: Sequence[Units], *, progress: Progress = SILENT
) -> dict[str, list[float]]:
    """By part, the predicted rise of the loss for each of its widths, by masks on its units.

    Each unit is multiplied by a mask of 1; its importance is the sum over examples of the squared gradient of the
    example's loss, with the data's own labels, in that mask. Half of it, by answer, is what the loss rises by where the
    unit goes; of a part the least important units go first, and their importances add up (Kwon et al. 2022, the
    diagonal of the Fisher matrix). The model is not changed.

    Beside :func:`.rises.rises_by_width` it looks at labels and knows neither interactions nor repair. It is rougher
    within a part, and spreads a budget otherwise over the layers; which spread is better shows when it is measured.
    """
    gates = Gates({part.path: (part.last.path, part.count) for part in parts}, _squared)
    answers, batches = 0, list(calibration.batches())
    with (
        answering(model),
        torch.enable_grad(),
        gates.hooked(model),
        progress.bar("gradients of masks", len(batches)) as bar,
    ):
        for batch in batches:
            gates.begin(len(batch["input_ids"]))
            loss, count = task.loss(model, to_device_of(model, batch))
            torch.autograd.grad(loss * count, list(gates.reads.values()))
            answers += count
            bar.advance()
    return {part.path: by_width(part, gates.sums[part.path].sort().values.tolist(), answers) for part in parts}


def _squared(gradients: Tensor) -> Tensor:
    return (gradients if gradients.device.type == "mps" else gradients.double()).square()
