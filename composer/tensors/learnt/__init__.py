"""Masks that are learnt with a model: how scores move, one file and one row each, and what is done with them.

The contract has four parts. *Score* and *mask* are a class of :class:`~.scores.LearntScores`; *patch*, how a model is
made to compute with what is masked, is :class:`~.patch.Patch`; *compile*, a smaller dense model, is
``composer.shrink``.
"""

from __future__ import annotations

from ...registry import Registry

WAYS: Registry[type] = Registry(
    "scores",
    {
        "movement": "composer.tensors.learnt.movement:MovementScores",
        "magnitude": "composer.tensors.learnt.magnitude:MagnitudeScores",
        "sigmoid": "composer.tensors.learnt.sigmoid:SigmoidScores",
        "l0": "composer.tensors.learnt.l0:HardConcreteScores",
    },
)
"""Ways to learn scores, by name."""
