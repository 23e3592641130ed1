"""What the parts of a model do by themselves, added up: measured costs that rank composed models, and do not choose.

Each part is narrowed by itself to a few widths, repaired, and the answers of that model are kept, sentence by sentence.
For a composed model either the rises of the loss of its parts are added up, or (better) the shifts of its answers are,
and the loss is that of the sum: parts that push an answer the same way, or against each other, are then seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Answers = NDArray[np.float64]
"""Logits of all sentences, (sentences, classes)."""
SHARES = (0.8, 0.6, 0.4, 0.2, 0.06, 0.0)
"""Which part of its units a part keeps where it is measured."""


class PartsAlone:
    """The answers of models in which one part alone is narrower.

    Args:
        counts: of each part, how many units each of its widths keeps, from all to none.
        answers: gives the answers of a model by the index of the width of each part.
    """

    def __init__(self, counts: Sequence[Sequence[int]], answers: Callable[[Sequence[int]], Answers]) -> None:
        self.counts = counts
        self.base = answers([0] * len(counts))
        self._shift = cache(lambda m, k: answers([k * (m == i) for i in range(len(counts))]) - self.base)

    def measured_at(self, m: int) -> list[int]:
        """The indices of the widths at which part ``m`` is measured."""
        own = self.counts[m]
        return sorted({nearest(own, share * own[0]) for share in SHARES} - {0})

    def _between(self, m: int, k: int, at: Callable[[int], NDArray[np.float64]]) -> NDArray[np.float64]:
        """A figure of part ``m`` at width ``k`` from those ``at`` measured widths; in between in proportion.

        None of a part is another thing than few of it, so from the last measured width down to one unit it stays.
        """
        known = [0, *self.measured_at(m)]
        after = next(i for i in known if i >= k)
        before = max(i for i in known if i <= k)
        if before == after or after == known[-1]:
            return at(before)
        weight = (k - before) / (after - before)
        return (1 - weight) * at(before) + weight * at(after)

    def shift(self, m: int, k: int) -> Answers:
        """How the answers move where part ``m`` alone has width ``k``."""
        return self._between(m, k, lambda at: self._at(m, at))

    def rise(self, m: int, k: int, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """By how much the loss of each sentence rises where part ``m`` alone has width ``k``."""
        base = losses(self.base, labels)
        return self._between(m, k, lambda at: losses(self.base + self._at(m, at), labels) - base)

    def _at(self, m: int, k: int) -> Answers:
        shift: Answers = self._shift(m, k) if k else np.zeros_like(self.base)
        return shift

    def added(self, chosen: Sequence[int]) -> Answers:
        """The answers of a composed model, if what its parts do to them adds up."""
        return self.base + np.sum([self.shift(m, k) for m, k in enumerate(chosen)], 0)

    def rises(self, chosen: Sequence[int], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rises of the loss of each sentence, of its parts by themselves, added up."""
        return np.sum([self.rise(m, k, labels) for m, k in enumerate(chosen)], 0)


def nearest(counts: Sequence[int], wanted: float) -> int:
    """The index of the count that is nearest."""
    return min(range(len(counts)), key=lambda k: abs(counts[k] - wanted))


def losses(answers: Answers, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The loss of each sentence.

    >>> losses(np.array([[0.0, 0.0], [5.0, -5.0]]), np.array([0, 0])).round(4).tolist()
    [0.6931, 0.0]
    """
    highest = answers.max(1, keepdims=True)
    total = np.log(np.exp(answers - highest).sum(1)) + highest[:, 0]
    return np.asarray(total - answers[np.arange(len(answers)), labels])
