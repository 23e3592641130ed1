"""Magnitude: the sum of absolute values (Han et al. 2015; heads as in the structured l1 of Li et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from ..layout import Target


class L1:
    """Score of a weight: ``|w|``. Score of a head: sum of ``|w|`` over its rows of q, k and v."""

    name = "l1"
    needs: frozenset[str] = frozenset()

    def score(self, target: Target, weights: list[Tensor], stats: Mapping[str, Tensor]) -> Tensor:
        """(heads,) for attention, (out, in) for linear; see :class:`composer.criteria.criterion.Criterion`."""
        if target.kind == "linear":
            return weights[0].abs()
        per_projection = [w.abs().reshape(target.heads, -1).sum(1, dtype=w.dtype) for w in weights]
        total = per_projection[0]
        for part in per_projection[1:]:
            total = total + part
        return total
