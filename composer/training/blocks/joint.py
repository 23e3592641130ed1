"""Blocks in context: closed forms first, then every configuration of the scheme learns as one network.

The waves are those of :class:`.least_squares.LeastSquares`, in the same library under the same addresses. What comes
after them takes the whole scheme (:mod:`composer.training.joint`).
"""

from __future__ import annotations

from .least_squares import LeastSquares
from .trainer import BlockSettings


class Joint(LeastSquares):
    """See :class:`.trainer.BlockTrainer`."""

    fields = (*LeastSquares.fields, "steps", "batch_size", "learning_rate", "patience", "evaluations", "start")
    in_context = True

    @classmethod
    def starts_from(cls, settings: BlockSettings) -> str | None:
        """Repaired blocks, where the recipe does not want pruned ones as they are."""
        return None if settings.start == "pruned" else "least_squares"
