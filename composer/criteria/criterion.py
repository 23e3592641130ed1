"""What makes a unit unimportant: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..layout import Target

Stats = Mapping[str, Any]
"""Statistics of the base model on the calibration sample, by name.

==========  ============================================================================================
``"gram"``  list of :class:`composer.gram.Gram`, one per projection of the target: moments of its inputs
``"out"``   for an attention target, with ``"gram"``: ``(weight, gram)`` of its out-projection, (out, in)
==========  ============================================================================================
"""


class Criterion(Protocol):
    """Scores units; the lowest go.

    ``needs`` names the statistics that must be captured before :meth:`score` is called (none for l1).
    """

    name: str
    needs: frozenset[str]

    def score(self, target: Target, weights: list[Tensor], stats: Stats) -> Tensor:
        """Importance of each unit.

        Args:
            target: what is scored.
            weights: one (out, in) matrix per projection of the target, in its order.
            stats: the statistics that ``needs`` names.

        Returns:
            (heads,) for an attention target, (out, in) for a linear one.
        """
        ...
