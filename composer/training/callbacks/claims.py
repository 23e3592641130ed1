"""Who learns the masks of a model: two at once on one weight would each undo what the other does."""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import nn

from ...errors import ModelError


class Learner(Protocol):
    """What learns masks of weights, in one training at a time."""

    @property
    def names(self) -> Set[str]:
        """The weights, by name."""
        ...

    def abandon(self) -> None:
        """Leave the model alone: its training has ended without saying so."""
        ...


_CLAIMS: WeakKeyDictionary[nn.Module, list[tuple[object, Learner]]] = WeakKeyDictionary()


def free_of_others(model: nn.Module, training: object) -> None:
    """Make learners of other trainings let go: they are left from one that was interrupted, as in a notebook.

    Args:
        training: any object that stands for the training that begins.
    """
    for which, learner in list(_CLAIMS.get(model, [])):
        if which is not training:
            give_up(learner, model)
            learner.abandon()


def claim(learner: Learner, model: nn.Module, training: object) -> None:
    """Say that ``learner`` learns masks of ``model`` in this training.

    Raises:
        ModelError: another one learns masks of the same weights.
    """
    for _, other in _CLAIMS.get(model, []):
        if both := sorted(learner.names & other.names):
            more = f" and {len(both) - 1} more weights" if len(both) > 1 else ""
            raise ModelError(
                f"LearnMasks: {both[0]}{more}: named by two LearnMasks; give one of them the rules of both"
            )
    _CLAIMS.setdefault(model, []).append((training, learner))


def give_up(learner: Learner, model: nn.Module) -> None:
    """Say that the training of ``learner`` has ended."""
    _CLAIMS[model] = [one for one in _CLAIMS.get(model, []) if one[1] is not learner]
