"""What a part of a model costs the loss at every width: brain-surgeon costs on moments that know the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..choosing.widths import widths
from ..progress import SILENT, Progress
from ..scheme.layout import Stream
from ..shrinking.units import Units
from ..tensors.brain_surgeon import obs_groups
from .loss_moments import LossMoments, gather_loss_moments

if TYPE_CHECKING:
    from ..tasks.task import Task
    from .sample import Calibration


def rises_by_width(
    model: nn.Module,
    task: Task,
    calibration: Calibration,
    parts: Sequence[Units],
    *,
    damping: float,
    progress: Progress = SILENT,
) -> tuple[dict[str, list[float]], dict[Stream, float]]:
    """By part, the predicted rise of the loss for each of its :func:`widths`; and by stream the mean length.

    For a part whose units are columns of ``W`` (out, in), the pass of :func:`composer.tensors.brain_surgeon.obs_groups`
    over ``R W`` with the weighted moments removes units one by one and repairs what is left; its costs, halved and by
    answer, are predicted changes of the loss, and so compare across parts (:mod:`.loss_moments`).
    """
    moments = gather_loss_moments(
        model, task, list(calibration.batches()), [part.last for part in parts], progress=progress
    )
    weights = dict(model.named_parameters())
    rises: dict[str, list[float]] = {}
    with progress.bar("costs of widths", len(parts)) as bar:
        for part in parts:
            rises[part.path] = _rises(part, part.last.of(weights[part.last.weight]), moments[part.last.path], damping)
            bar.advance()
    grams = {part.last.stream: moments[part.last.path].gram for part in parts}
    lengths = {stream: gram.tokens / gram.examples for stream, gram in grams.items()}
    return rises, lengths


@torch.no_grad()
def _rises(part: Units, weight: Tensor, known: LossMoments, damping: float) -> list[float]:
    gram = known.gram
    matrix = known.root.to(weight.device) @ weight.double()
    if gram.bias:
        matrix = torch.cat([matrix, matrix.new_zeros(len(matrix), 1)], 1)
    columns = torch.arange(part.last.in_features, device=weight.device).reshape(part.count, -1)
    costs = obs_groups(matrix, gram.matrix, columns, [part.count], damping=damping).costs
    return by_width(part, costs, known.answers)


def by_width(part: Units, costs: Sequence[float], answers: int) -> list[float]:
    """The rise of the loss at each of a part's :func:`widths`, by answer.

    Args:
        costs: twice what each removal adds to the loss of all ``answers``, in the order in which units go.
    """
    # A cost is never below 0 but for rounding, and a smaller width never cheaper than a larger one.
    total = torch.tensor([0.0, *costs], dtype=torch.float64).clamp_min(0).cumsum(0) / (2 * max(1, answers))
    return [float(total[part.count - kept]) for kept in widths(part)]
