"""Sublayers of which nearly nothing is left go whole. Plain numbers, no torch.

A table of costs by width sees a part's last few units as worth much: without any of them it cannot be repaired. Yet a
model without the whole sublayer can lose less than one that keeps a fiftieth of it (the last feed-forward of a
classifier, docs/choose.md), and what it took is free for others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence


def with_least(shares: Mapping[str, float]) -> set[str]:
    """Paths of the parts that are gone already, and of the one of which the least is left.

    Args:
        shares: path of a part -> the share of it that stays, in execution order.

    >>> sorted(with_least({"a": 1.0, "b": 0.0, "c": 0.25}))
    ['b', 'c']
    """
    order = sorted(shares, key=lambda path: shares[path])
    gone = [path for path in order if not shares[path]]
    return set(order[: len(gone) + 1])


def without(rises: Mapping[str, Sequence[float]], gone: Collection[str]) -> dict[str, list[float]]:
    """The rises by width with which a program takes these parts whole: every width but none costs more than all others.

    >>> without({"a": [0.0, 1.0, 5.0], "b": [0.0, 2.0]}, {"a"})
    {'a': [8.0, 8.0, 0.0], 'b': [0.0, 2.0]}
    """
    most = never_taken(rises)
    return {path: [most] * (len(own) - 1) + [0.0] if path in gone else list(own) for path, own in rises.items()}


def never_taken(rises: Mapping[str, Sequence[float]]) -> float:
    """A rise above that of everything together: what costs it is taken only where nothing else is left."""
    return 1.0 + sum(max(own) for own in rises.values())
