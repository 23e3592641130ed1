"""The search on a fitness that is no sum, and the choice of what shares blocks."""

from __future__ import annotations

from itertools import pairwise, product

from composer.choosing.program import Part, best_widths, sharing_widths
from composer.choosing.search import Found, Widths, prefer_shared, search

PARTS = [Part(str(m), [0.0, 1.0, 2.0, 4.0], {"macs": [3.0, 2.0, 1.0, 0.0]}) for m in range(5)]
BUDGET = {"macs": 8.0}


def fitness(widths: Widths, sample: float) -> float:
    """Neighbours that are both narrow cost more than their sum, which the program cannot know."""
    alone = sum(part.rises[k] for part, k in zip(PARTS, widths, strict=True))
    return alone + sum(3 * (a * b) for a, b in pairwise(widths)) + (1 - sample) * 0.01


def spent(widths: Widths) -> float:
    return sum(part.costs["macs"][k] for part, k in zip(PARTS, widths, strict=True))


def test_the_best_within_the_budget_is_found_and_the_same_with_the_same_seed() -> None:
    start = best_widths(PARTS, BUDGET)
    assert start is not None
    found = search(PARTS, BUDGET, start, fitness, 250, seed=1)
    best = min(fitness(w, 1.0) for w in product(range(4), repeat=5) if spent(w) <= 8)
    assert found.best[0][1] == best < fitness(tuple(start), 1.0)
    assert all(spent(widths) <= 8 for widths, _ in found.best)
    assert search(PARTS, BUDGET, start, fitness, 250, seed=1) == found


def test_among_nearly_equal_candidates_the_one_that_shares_blocks_is_taken() -> None:
    found = Found((((0, 1), 1.0), ((2, 3), 1.005), ((3, 3), 1.2)), 3)
    assert prefer_shared(found, []) == (0, 1)
    assert prefer_shared(found, [(2, 0), (1, 3)]) == (2, 3)
    assert prefer_shared(found, [(2, 1)]) == (0, 1)  # what is whole is no block


def test_the_program_shares_blocks_where_that_costs_nearly_nothing() -> None:
    parts = [Part("a", [0.0, 1.0, 1.01, 5.0], {"macs": [3.0, 2.0, 1.9, 0.0]}) for _ in range(3)]
    budget, others = {"macs": 6.0}, [[2, 2, 2]]
    rise = {tuple(w): sum(p.rises[k] for p, k in zip(parts, w, strict=True)) for w in product(range(4), repeat=3)}
    fitting = [w for w in rise if sum(p.costs["macs"][k] for p, k in zip(parts, w, strict=True)) <= 6.0]
    least = min(rise[w] for w in fitting)
    nearly = [w for w in fitting if rise[w] <= least * 1.02]
    wanted = min(nearly, key=lambda w: (sum(k > 0 and k != 2 for k in w), rise[w]))
    assert tuple(best_widths(parts, budget) or ()) != wanted
    assert tuple(sharing_widths(parts, budget, others, 0.02) or ()) == wanted
    assert sharing_widths(parts, budget, [], 0.02) == best_widths(parts, budget)
