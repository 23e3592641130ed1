"""Sublayers of which nearly nothing is left go whole. Plain numbers, no torch.

A table of costs by width sees a part's last few units as worth much: without any of them it cannot be repaired. Yet a
model without the whole sublayer can lose less than one that keeps a fiftieth of it (the last feed-forward of a
classifier, docs/choose.md), and what it took is free for others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..shrinking.units import Units


def with_least(kept: Mapping[str, int], units: Sequence[Units]) -> set[str]:
    """Paths of the parts that are gone already, and of the one of which the least part is left.

    Args:
        kept: path of a part -> how many of its units stay; none but one at least.
    """
    gone = {one.path for one in units if not kept[one.path]}
    left = [one for one in units if kept[one.path]]
    return gone | {min(left, key=lambda one: kept[one.path] / one.count).path} if left else gone


def without(rises: Mapping[str, Sequence[float]], gone: Collection[str]) -> dict[str, list[float]]:
    """The rises by width with which a program takes these parts whole: every width but none costs more than all others.

    >>> without({"a": [0.0, 1.0, 5.0], "b": [0.0, 2.0]}, {"a"})
    {'a': [8.0, 8.0, 0.0], 'b': [0.0, 2.0]}
    """
    most = 1.0 + sum(max(own) for own in rises.values())
    return {path: [most] * (len(own) - 1) + [0.0] if path in gone else list(own) for path, own in rises.items()}
