"""What a part of a model costs the loss at every width, as published: Fisher information of masks, nothing repaired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..choosing.widths import widths
from ..progress import SILENT, Progress
from ..shrinking.units import Units
from ..tensors.forward import answering, to_device_of

if TYPE_CHECKING:
    from ..tasks.task import Task
    from .sample import Calibration


def fisher_by_width(
    model: nn.Module, task: Task, calibration: Calibration, parts: Sequence[Units], *, progress: Progress = SILENT
) -> dict[str, list[float]]:
    """By part, the predicted rise of the loss for each of its :func:`widths`, by masks on its units.

    Each unit is multiplied by a mask of 1; its importance is the sum over examples of the squared gradient of the
    example's loss, with the data's own labels, in that mask. Half of it, by answer, is what the loss rises by where the
    unit goes; of a part the least important units go first, and their importances add up (Kwon et al. 2022, the
    diagonal of the Fisher matrix). The model is not changed.

    Beside :func:`.rises.rises_by_width` it looks at labels and knows neither interactions nor repair. It is rougher
    within a part, and spreads a budget otherwise over the layers; which spread is better shows when it is measured.
    """
    squares = {part.path: torch.zeros(part.count, dtype=torch.float64) for part in parts}
    answers, batches = 0, list(calibration.batches())
    with answering(model), torch.enable_grad(), progress.bar("gradients of masks", len(batches)) as bar:
        for batch in batches:
            with _inputs(model, parts) as seen:
                loss, count = task.loss(model, to_device_of(model, batch))
            slopes = torch.autograd.grad(loss * count, [seen[part.path] for part in parts])
            for part, slope in zip(parts, slopes, strict=True):
                squares[part.path] += _by_unit(part, seen[part.path].detach() * slope, len(batch["input_ids"]))
            answers += count
            bar.advance()
    return {part.path: _rises(part, squares[part.path], answers) for part in parts}


@contextmanager
def _inputs(model: nn.Module, parts: Sequence[Units]) -> Iterator[dict[str, Tensor]]:
    """What the last projection of each part reads within the body, by the part's path."""
    seen: dict[str, Tensor] = {}

    def keeper(path: str) -> object:
        return lambda _, args: seen.__setitem__(path, args[0])

    handles = [model.get_submodule(p.last.path).register_forward_pre_hook(keeper(p.path)) for p in parts]  # type: ignore[arg-type]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _by_unit(part: Units, product: Tensor, examples: int) -> Tensor:
    """Squared gradients in the masks, (units,): of inputs times their gradients, (…, in), whatever their batch is."""
    each = product.reshape(examples, -1, part.count, part.columns).sum((1, 3))
    return each.double().square().sum(0).cpu()


def _rises(part: Units, squares: Tensor, answers: int) -> list[float]:
    total = torch.cat([torch.zeros(1, dtype=torch.float64), squares.sort().values.cumsum(0)]) / (2 * max(1, answers))
    return [float(total[part.count - kept]) for kept in widths(part)]
