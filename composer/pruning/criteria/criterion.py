"""What makes a unit unimportant: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from ...scheme.shapes import SINGLE, Shape

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...tensors.ranking import Keep

Stats = Mapping[str, Any]
"""Statistics of the base model on the calibration sample, by name.

==============  ======================================================================================
``"gram"``      list of :class:`composer.calibration.gram.Gram`, one per projection: moments of its inputs,
                plain or such as know the loss (then with a ``metric`` of its outputs)
``"out"``       for heads, with ``"gram"``: ``(weight, gram)`` of the out-projection, (out, in)
``"loss_gram"`` for heads and neurons: ``(weight, gram)`` of the projection that reads them, (out, in), with
                moments that know the loss (:mod:`composer.calibration.loss_moments`)
``"gradient"``  list of (out, in), one per projection: mean ``|∂L/∂W|`` (:mod:`composer.calibration.gradients`)
``"gates"``     for heads and neurons, with ``"gradient"``: mean ``|∂L/∂ξ|``, (heads,) or (neurons,)
``"movement"``  list of (out, in), one per projection: learnt scores (:mod:`composer.calibration.movement`)
``"seed"``      of the run
==============  ======================================================================================
"""

IDENTIFIES = {
    "gram": "calibration",
    "loss_gram": "calibration",
    "gradient": "calibration",
    "movement": "movement",
    "seed": "seed",
}
"""What a criterion can need -> the setting of a run that says which it was. ``"out"`` and ``"gates"`` come along."""

SAMPLED = frozenset(name for name, setting in IDENTIFIES.items() if setting == "calibration")
"""What is looked at on the calibration sample."""

ANY_SHAPE = (SINGLE - {"global"}) | {"row", "column", "RxC", "head", "neuron"}
"""What a criterion of single weights makes sense with: its values are summed over a unit."""


class Criterion(Protocol):
    """Scores units; the lowest go. What there is to know of a criterion it says itself, so none is asked for by name.

    Attributes:
        name: under which it is asked for, and stands in lineages.
        needs: the statistics that must be captured before :meth:`score` is called: keys of :data:`IDENTIFIES`; none
            for l1.
        shapes: the kinds of shapes that it makes sense with (:data:`composer.scheme.shapes.KINDS`). ``"global"``
            among them says that its scores are comparable over targets; alone, that nothing else makes sense, and it
            needs not be said.
        rowwise (optional): True compares single weights within their output rows where no other shape is asked for.
        version (optional): 1 where it is not said; goes up when the same statistics give other masks than before.
    """

    name: str
    needs: frozenset[str]
    shapes: frozenset[str]

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """Importance of each unit.

        Args:
            target: what is scored: an attention target by heads, a feed-forward by neurons, or a linear one.
            weights: one (out, in) matrix per projection of the target, in its order.
            stats: the statistics that ``needs`` names.
            shape: of the units; None is the target's default.

        Returns:
            As :func:`composer.tensors.ranking.totals`: (out, in) for single weights, (heads,), (neurons,), …
        """
        ...


@runtime_checkable
class MovingCriterion(Criterion, Protocol):
    """A criterion that also moves the weights that are kept. It prunes in one go: there are no scores to keep."""

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """A ``ValueError``: what a unit is worth depends on what was removed before it."""
        raise ValueError(f"{target.path}: criterion {self.name!r} has no scores; it moves the weights that it keeps")

    def prune(
        self, target: Target, weights: list[Tensor], stats: Stats, keep: Keep
    ) -> tuple[list[Tensor], list[Tensor]]:
        """New weights and keep-masks (bool), (out, in) each, one per projection; removed weights are 0."""
        ...


def moves_weights(criterion: Criterion) -> TypeGuard[MovingCriterion]:
    """Whether a criterion moves the weights that it keeps: then it has ``prune``, and no scores."""
    return hasattr(criterion, "prune")


def version_of(criterion: Criterion) -> int:
    """What is part of the address of all that a criterion makes, so that nothing stale is taken from a library."""
    return getattr(criterion, "version", 1)


def is_rowwise(criterion: Criterion) -> bool:
    """Whether a criterion compares single weights within their output rows where no other shape is asked for."""
    return getattr(criterion, "rowwise", False)


def statistic(name: str, target: Target, criterion: str, stats: Stats) -> Any:
    """``stats[name]``, or a ``ValueError`` that says who misses it."""
    if name not in stats:
        raise ValueError(f"{target.path}: criterion {criterion!r} needs the statistic {name!r}; got {sorted(stats)}")
    return stats[name]
