"""Magnitude with one threshold over all targets (Han et al. 2015; Blalock et al. 2020 on why it is the one to beat).

How much each target gives follows from the weights: it is counted when the scheme is made
(:mod:`composer.pruning.global_rates`), so that a node still says its own rate. Within a target the ranking is then
l1's, and the masks of all targets together are those of one ranking over all.
"""

from __future__ import annotations

from .l1 import L1


class GlobalL1(L1):
    """Score of a weight: ``|w|``, (out, in), comparable across targets."""

    name = "global_l1"
    shapes: frozenset[str] = frozenset({"global"})
