"""Blocks in context: closed forms first, then every configuration of the scheme learns as one network.

The waves are those of :class:`.least_squares.LeastSquares`, in the same library under the same addresses. What comes
after them takes the whole scheme (:mod:`composer.training.joint`).
"""

from __future__ import annotations

from .least_squares import LeastSquares


class Joint(LeastSquares):
    """See :class:`.trainer.BlockTrainer`; ``in_context`` says that the scheme learns as a whole afterwards."""

    fields = (*LeastSquares.fields, "steps", "batch_size", "learning_rate", "patience", "evaluations", "start")
    in_context = True
