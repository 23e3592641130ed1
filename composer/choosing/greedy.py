"""Rates per target for a wished overall sparsity: the cheapest weights first. Plain numbers, no torch.

Of each target it is known what the loss rises by when so many of its weights go and all else stays. The lower convex
hull of these points, from (0, 0) on, has segments whose price per weight grows; taking segments of all targets in the
order of their price minimises the sum of the rises for every count that a prefix of them reaches (Lagrange: a price
per weight is the multiplier), as far as rises of single targets add up. That they do is an assumption: the proposal is
measured as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[int, float]
"""Weights removed, and the rise of the loss."""


@dataclass(frozen=True)
class Choice:
    """What goes: weights of each target (0 left out), and the sum of the rises on the hulls."""

    removed: dict[str, int]
    rise: float


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """The lower convex hull of ``points`` and (0, 0): first (0, 0), then so that the price per weight grows.

    >>> lower_hull([(4, 1.0), (8, 1.2), (12, 6.0)])
    [(0, 0.0), (8, 1.2), (12, 6.0)]
    """
    cheapest: dict[int, float] = {}
    for removed, rise in points:
        if removed > 0:
            cheapest[removed] = min(rise, cheapest.get(removed, rise))
    hull: list[Point] = [(0, 0.0)]
    for point in sorted(cheapest.items()):
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def choose(table: Mapping[str, Sequence[Point]], units: Mapping[str, int], goal: int) -> Choice:
    """Remove ``goal`` weights in all, the cheapest first.

    The segment that would go beyond the goal is taken in part, in whole units; what a unit of several weights (a head)
    then leaves over is taken from the next segments. So the count is ``goal`` exactly, as long as a target of single
    weights has some to give, and else less than one unit below it.

    Args:
        table: points of each target.
        units: weights that go together in each target: 1, or those of a head.

    Raises:
        ValueError: the targets have fewer weights to give.
    """
    hulls = {target: lower_hull(points) for target, points in table.items()}
    if goal > (most := sum(hull[-1][0] for hull in hulls.values())):
        raise ValueError(f"goal: got {goal}; at most {most} weights can go")
    segments = sorted(
        (_price(low, high), order, i, target)
        for order, (target, hull) in enumerate(hulls.items())
        for i, (low, high) in enumerate(pairwise(hull))
    )
    removed, left = dict.fromkeys(hulls, 0), goal
    for _, _, i, target in segments:
        (low, _), (high, _) = hulls[target][i : i + 2]
        if removed[target] == low:  # else an earlier one of its segments was not taken whole
            going = high - low if high - low <= left else left // units[target] * units[target]
            removed[target] += going
            left -= going
    rise = sum(rise_at(hulls[target], count) for target, count in removed.items())
    return Choice({target: count for target, count in removed.items() if count}, rise)


def rise_at(hull: Sequence[Point], count: int) -> float:
    """The rise on a hull, between its points in proportion."""
    for low, high in pairwise(hull):
        if count <= high[0]:
            return low[1] + (count - low[0]) * _price(low, high)
    return hull[-1][1]


def _price(low: Point, high: Point) -> float:
    return (high[1] - low[1]) / (high[0] - low[0])
