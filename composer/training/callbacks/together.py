"""Scores that several processes learn: each sees batches of its own, and all have the same masks.

A model's weights are equal in all processes, and what batches add to a score is a sum: so the mean over processes of
what was gathered is what one process would have gathered from all batches. Gradients are masked before DDP averages
them, by masks that are equal everywhere.
"""

from __future__ import annotations

import torch

from ...errors import ModelError
from ...tensors.learnt.scores import LearntScores


def begin_together(scores: LearntScores) -> None:
    """Begin with the scores of the first process, also where they are drawn.

    Raises:
        ModelError: scores of a way that keeps what it learns to itself.
    """
    if scores.alone:
        raise ModelError(
            f"LearnMasks: {type(scores).__name__} learns in one process, got several; what learn() adds up must stand"
            " in `gathered`, of which the mean is taken"
        )
    for name in sorted(scores.of):
        torch.distributed.broadcast(scores.of[name], 0)


def average(scores: LearntScores) -> None:
    """The mean over processes of what the batches since the last step have added."""
    for name in sorted(scores.gathered):
        torch.distributed.all_reduce(scores.gathered[name])
        scores.gathered[name] /= torch.distributed.get_world_size()
