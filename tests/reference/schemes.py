"""Counting a scheme's nodes by brute force: sets of (module, rates) without hashes or graphs.

A module of the model is given by a path prefix and the targets that stand below it, so nothing of the
scheme's own walk is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Rates = Mapping[str, float]
Groups = Sequence[tuple[str, frozenset[str]]]
"""Modules of one level: path, and the targets below it."""


def distinct(configurations: Iterable[Rates], groups: Groups) -> set[tuple[str, frozenset[tuple[str, float]]]]:
    """Distinct pruned sub-configurations of the groups: (path, rates of the pruned targets in it)."""
    return {
        (path, inside)
        for rates in configurations
        for path, members in groups
        if (inside := frozenset((t, r) for t, r in rates.items() if t in members))
    }


def uses(configurations: Iterable[Rates], groups: Groups) -> int:
    """How many groups hold a pruned target, over all configurations."""
    return sum(any(t in members for t in rates) for rates in configurations for _, members in groups)


def work(configurations: Sequence[Rates], groups: Groups, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Weights of all targets in the groups that are tuned: once each, and once per use."""
    inside = {path: sum(sizes[t] for t in members) for path, members in groups}
    shared = sum(inside[path] for path, _ in distinct(configurations, groups))
    unshared = sum(
        inside[path] for rates in configurations for path, members in groups if any(t in members for t in rates)
    )
    return shared, unshared


def by_prefix(targets: Iterable[str], depth: int) -> Groups:
    """Group targets by the first ``depth`` parts of their paths."""
    groups: dict[str, set[str]] = {}
    for target in targets:
        groups.setdefault(".".join(target.split(".")[:depth]), set()).add(target)
    return [(path, frozenset(members)) for path, members in groups.items()]
