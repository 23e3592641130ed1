"""How much of a final amount is masked at a time of a training."""

from __future__ import annotations

WARM_UP, COOL_DOWN = 0.1, 0.3
"""Shares of a training before anything is masked, and at the full amount."""


def risen(way: float, warm_up: float = WARM_UP, cool_down: float = COOL_DOWN) -> float:
    """The part of the final amount after ``way`` (0 to 1) of a training: cubic (Zhu and Gupta 2017).

    >>> risen(0.0, 0.0, 0.5), risen(0.25, 0.0, 0.5), risen(0.5, 0.0, 0.5)
    (0.0, 0.875, 1.0)
    """
    between = (way - warm_up) / max(1e-9, 1 - warm_up - cool_down)
    return 1 - (1 - min(1.0, max(0.0, between))) ** 3
