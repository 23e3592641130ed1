"""What a few noisy measurements say: median and quartiles, and a ratio of pairs with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median, quantiles

CONFIDENCE = 0.95
"""At least so often an interval holds the true median."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some seconds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value.

        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 100.0])
        Spread(median=3.0, low=2.0, high=4.0)
        """
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one of two is: median of the ratios of all pairs, with its interval.

    ``noisy`` says that the measurements cannot tell which is the faster one: the interval holds 1, or the ratios'
    quartiles are further apart than the ratio is from 1.
    """

    value: float
    low: float
    high: float
    noisy: bool

    @classmethod
    def of(cls, before: Sequence[float], after: Sequence[float]) -> Ratio:
        """Of seconds that were measured in turn, the i-th of one just beside the i-th of the other.

        >>> Ratio.of([2.0, 2.2, 1.9, 2.0, 2.1, 2.0, 2.0], [1.0] * 7)
        Ratio(value=2.0, low=1.9, high=2.2, noisy=False)
        >>> Ratio.of([1.0, 1.2, 0.9, 1.0, 1.1, 0.8, 1.0], [1.0] * 7).noisy
        True
        """
        ratios = [a / b for a, b in zip(before, after, strict=True)]
        value, (low, high), spread = median(ratios), interval(ratios), Spread.of(ratios)
        noisy = low <= 1 <= high or spread.high - spread.low > abs(value - 1)
        return cls(value, low, high, noisy)

    @property
    def resolution(self) -> float:
        """The largest difference from 1 that the interval allows: smaller ones would not show."""
        return max(abs(self.low - 1), abs(self.high - 1))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Two of the values between which the true median lies with :data:`CONFIDENCE`, whatever the distribution.

    The number of values below the median is binomial(n, 1/2), so the k-th smallest and the k-th largest hold it but
    for twice the chance of fewer than k (David & Nagaraja, Order Statistics, 2003, section 7.1). Under six values
    say less: the smallest and the largest of them.

    >>> interval([5.0, 1.0, 3.0]), interval([float(i) for i in range(1, 16)])
    ((1.0, 5.0), (4.0, 12.0))
    """
    ordered, n = sorted(values), len(values)
    k, below = 0, 1 / 2**n
    while 2 * below <= 1 - CONFIDENCE and k + 1 < n / 2:
        k += 1
        below += comb(n, k) / 2**n
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]
