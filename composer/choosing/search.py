"""A search over composed models: rises of single parts do not quite add up, so what they give is where to start.

An evolutionary search as in EvoPress (Sieberling et al. 2024): offspring are the parent after a few *level switches*,
by which one part gets narrower and another as much wider as every budget allows. Offspring of a generation are compared
on few examples, the better half of them on more, and so on; the last ones with the parent on all, and the best is the
next parent. Everything is drawn with one seed, so a search whose measurements are kept repeats itself. No torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .program import Part, added

Widths = tuple[int, ...]
"""The index of the width of each part, as :func:`.program.best_widths` gives them."""
Fitness = Callable[[Widths, float], float]
"""How bad a candidate is, on such a part of the examples."""

OFFSPRING = 8
"""Candidates of a generation."""
SAMPLES = (0.25, 0.5, 1.0)
"""Parts of the examples on which they are compared, one after the other; each time the better half goes on."""
SWITCHES = 3
"""Most level switches between parent and offspring."""
NEARLY = 0.01
"""Candidates whose fitness is within this part of the best's are taken for equally good."""


@dataclass(frozen=True)
class Found:
    """What a search found: the best candidates on all examples, best first, and how many evaluations it took."""

    best: tuple[tuple[Widths, float], ...]
    evaluations: int


def search(
    parts: Sequence[Part],
    budgets: Mapping[str, float],
    start: Sequence[int],
    fitness: Fitness,
    evaluations: int,
    seed: int,
    others: Sequence[Sequence[int]] = (),
) -> Found:
    """Try about so many candidates within the budgets; one on one sample is one evaluation.

    Args:
        start: where it begins.
        others: further places to begin at, within the budgets; the best of all is taken.
    """
    draw, known = random.Random(seed), _Known(fitness)
    starts = [tuple(start), *(tuple(one) for one in others if _within(parts, budgets, one))]
    parent = min(starts, key=lambda one: known(one, SAMPLES[-1]))
    idle = 0
    while known.count < evaluations and idle < 20:
        born = {child for _ in range(OFFSPRING) if (child := _offspring(parts, budgets, parent, draw)) != parent}
        before = known.count
        field = sorted(born)
        for sample in SAMPLES:
            if sample == SAMPLES[-1]:
                field = [*field, parent]
            field = sorted(field, key=lambda one: (known(one, sample), one))[: max(2, len(field) // 2)]
        parent = field[0]
        idle = idle + 1 if known.count == before else 0
    whole = sorted((value, one) for (one, sample), value in known.values.items() if sample == SAMPLES[-1])
    return Found(tuple((one, value) for value, one in whole), known.count)


def prefer_shared(found: Found, taken: Sequence[Widths]) -> Widths:
    """Of candidates nearly as good as the best the one that adds the fewest blocks to those of ``taken``."""
    limit = found.best[0][1] * (1 + NEARLY)
    good = [one for one, value in found.best if value <= limit]
    return min(good, key=lambda one: added(one, taken))


class _Known:
    """Fitness that was measured already; each new one counts."""

    def __init__(self, fitness: Fitness) -> None:
        self.fitness, self.values, self.count = fitness, dict[tuple[Widths, float], float](), 0

    def __call__(self, one: Widths, sample: float) -> float:
        if (one, sample) not in self.values:
            self.values[one, sample] = self.fitness(one, sample)
            self.count += 1
        return self.values[one, sample]


def _offspring(parts: Sequence[Part], budgets: Mapping[str, float], parent: Widths, draw: random.Random) -> Widths:
    """The parent after some level switches; itself where none fits."""
    child = list(parent)
    for _ in range(draw.randint(1, SWITCHES)):
        narrower, wider = draw.sample(range(len(parts)), 2) if len(parts) > 1 else (0, 0)
        step = draw.choice((1, 1, 2, 3, 5))
        tried = list(child)
        tried[narrower] = min(tried[narrower] + step, len(parts[narrower].rises) - 1)
        fitting = (k for k in range(tried[wider]) if _within(parts, budgets, [*tried[:wider], k, *tried[wider + 1 :]]))
        tried[wider] = next(fitting, tried[wider])
        if _within(parts, budgets, tried):
            child = tried
    return tuple(child)


def _within(parts: Sequence[Part], budgets: Mapping[str, float], widths: Sequence[int]) -> bool:
    return all(spent <= budget * (1 + 1e-9) + 1e-12 for spent, budget in _spent(parts, budgets, widths))


def _spent(parts: Sequence[Part], budgets: Mapping[str, float], widths: Sequence[int]) -> Iterator[tuple[float, float]]:
    for name, budget in budgets.items():
        yield sum(part.costs[name][k] for part, k in zip(parts, widths, strict=True)), budget
