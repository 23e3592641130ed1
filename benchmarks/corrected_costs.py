"""Rises of the loss by width, corrected by what a few widths of each part were measured to cost: tried, not used.

Predicted rises of one part grow with its width as measured ones do, but their size differs from layer to layer: a
Kronecker-factored Fisher matrix leaves out that changes at the tokens of one text add up, which they do in the first
layers and, where one token is read, not in the last. So each part is narrowed by itself to a few widths, and the
factor between what was measured and what was predicted is taken for all of its widths, in between in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

KNOTS = (0.5, 0.85, 1.0)
"""Which of its widths a part is measured at, as parts of the way from all units to none."""
LEAST = 1e-9
"""Rises below this are noise."""


def measured_at(count: int) -> list[int]:
    """The indices of the widths at which a part of so many widths is measured.

    >>> measured_at(13), measured_at(49)
    ([6, 10, 12], [24, 41, 48])
    """
    return sorted({max(1, round(part * (count - 1))) for part in KNOTS})


def corrected(rises: Sequence[float], measured: Mapping[int, float]) -> list[float]:
    """The rises of one part times what they were measured to be short of.

    Args:
        rises: by width, as predicted; they never fall.
        measured: index of a width -> what it was measured to cost.

    >>> [round(rise, 3) for rise in corrected([0.0, 0.1, 0.2, 0.4], {1: 0.2, 3: 1.6})]
    [0.0, 0.2, 0.566, 1.6]
    """
    predicted = np.maximum(np.asarray(rises, dtype=float), LEAST)
    places = sorted(measured)
    factors = [np.log(max(measured[k], LEAST) / predicted[k]) for k in places]
    made = predicted * np.exp(np.interp(np.log(predicted), np.log(predicted[places]), factors))
    made[np.asarray(rises) <= 0] = 0.0
    return list(map(float, np.maximum.accumulate(made)))
