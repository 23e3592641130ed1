"""One width for every part of a model so that the loss rises least within budgets: an integer program. No torch.

Part m (a sublayer) has widths k = 0, 1, …; each has a rise of the loss ``r_mk`` and, for every resource (operations,
bytes, seconds), a cost ``c_mk``. With one binary ``x_mk`` for each width:

    minimise  Σ r_mk x_mk    subject to    Σ_k x_mk = 1 for every m,    Σ c_mk x_mk ≤ budget for every resource

(a multiple-choice knapsack problem, as in Puzzle and ZipLM). That rises of single parts add up is an assumption.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

GAP = 1e-4
"""Relative distance from the best possible sum at which the solver may stop."""
SECONDS = 10.0
"""What the solver may take; a better answer than its last is then no longer looked for."""


@dataclass(frozen=True)
class Part:
    """What can be chosen between in one part of a model.

    Attributes:
        name: whose widths they are.
        rises: of the loss, by width.
        costs: resource -> cost, by width.
    """

    name: str
    rises: Sequence[float]
    costs: Mapping[str, Sequence[float]]


def best_widths(parts: Sequence[Part], budgets: Mapping[str, float]) -> list[int] | None:
    """The index of the chosen width of each part; None where the cheapest widths together exceed a budget.

    Equal choices are told apart by the first budget's cost, so that the answer is the same everywhere.
    """
    places = [(m, k) for m, part in enumerate(parts) for k in range(len(part.rises))]
    rises = np.array([parts[m].rises[k] for m, k in places])
    scale = max(float(np.abs(rises).max(initial=0.0)), 1e-30)
    rows = np.array([m for m, _ in places])
    one = LinearConstraint(csr_array((np.ones(len(places)), (rows, np.arange(len(places))))), 1, 1)
    limits = []
    for resource, budget in budgets.items():
        costs = np.array([parts[m].costs[resource][k] for m, k in places])
        whole = max(float(costs.max(initial=0.0)), 1e-30)
        limits.append(LinearConstraint(csr_array(costs[None, :] / whole), -np.inf, budget / whole + 1e-12))
    tie = _tie(parts, places, next(iter(budgets), None))
    found = milp(
        rises / scale + 1e-9 * tie,
        constraints=[one, *limits],
        integrality=np.ones(len(places)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    if found.x is None:
        return None
    chosen = [0] * len(parts)
    for (m, k), x in zip(places, found.x, strict=True):
        if x > 0.5:
            chosen[m] = k
    return chosen


def sharing_widths(
    parts: Sequence[Part], budgets: Mapping[str, float], taken: Sequence[Sequence[int]], nearly: float
) -> list[int] | None:
    """As :func:`best_widths`; of all widths whose rise is nearly the least those that add the fewest blocks.

    A block is a part that is narrower than whole (its index is not 0); one that another configuration has at the same
    width is pruned and repaired there already.

    Args:
        taken: the other configurations.
        nearly: how much larger than the least the rise may be, relative.
    """
    least = best_widths(parts, budgets)
    if least is None or not taken:
        return least
    limit = (1 + nearly) * sum(part.rises[k] for part, k in zip(parts, least, strict=True))
    scale = 2 * max(limit, 1e-30)  # together the rises count half a block, so they only tell equals apart
    counted = [
        Part(
            part.name,
            [added([k], [[one[m]] for one in taken]) + rise / scale for k, rise in enumerate(part.rises)],
            {**part.costs, "rise": part.rises},
        )
        for m, part in enumerate(parts)
    ]
    return best_widths(counted, {**budgets, "rise": limit}) or least


def added(widths: Sequence[int], taken: Sequence[Sequence[int]]) -> int:
    """How many blocks these widths have that no configuration of ``taken`` has.

    >>> added([0, 2, 3], [[1, 2, 1], [1, 1, 1]])
    1
    """
    return sum(k > 0 and not any(other[m] == k for other in taken) for m, k in enumerate(widths))


def _tie(parts: Sequence[Part], places: Sequence[tuple[int, int]], resource: str | None) -> np.ndarray:
    """Costs between 0 and 1."""
    if resource is None:
        return np.zeros(len(places))
    costs = np.array([parts[m].costs[resource][k] for m, k in places])
    return np.asarray(costs / max(float(costs.max(initial=0.0)), 1e-30))
