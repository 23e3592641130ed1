"""How sure a figure is: standard errors, intervals, and whether two models differ on the same problems.

A measure is made of *columns*, a few numbers for each sample, and of a function of their sums: accuracy of (right, 1),
F1 of the four counts, BLEU of matches and lengths. So one product of matrices gives its value for every draw of a
bootstrap (Efron 1979). A measure that is no function of sums (a rank correlation) says so, and is computed anew for
every draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

DRAWS = 2000
"""Bootstrap draws; of a measure that is computed anew for each, a quarter."""
LEVEL = 0.95
Z = 1.959963984540054
"""Standard normal quantile of the two-sided level."""
ALPHA = 1 - LEVEL
CHUNK = 2_000_000
"""Most weights of a bootstrap that are held at once."""

Columns = Callable[[Sequence[dict[str, Any]]], np.ndarray]


@dataclass(frozen=True)
class Measure:
    """A figure of many samples.

    Attributes:
        name: its row in ``composer.tasks.metrics.table``.
        columns: samples -> (n, k) numbers.
        value: sums of the columns, (..., k) -> (...); where ``of_rows``, the columns themselves, (n, k) -> number.
        of_rows: it is no function of sums.
        scale: 100 where it is shown in per cent.
    """

    name: str
    columns: Columns
    value: Callable[[np.ndarray], Any]
    of_rows: bool = False
    scale: float = 1.0

    def of(self, samples: Sequence[dict[str, Any]]) -> float:
        """Its value."""
        return self.of_columns(self.columns(samples))

    def of_columns(self, columns: np.ndarray) -> float:
        """Its value, from the columns of the samples."""
        return self.scale * float(self.value(columns if self.of_rows else columns.sum(axis=0)))


def mean_of(name: str, key: str, scale: float = 1.0) -> Measure:
    """The mean of one number of each sample (true counts as 1)."""
    return Measure(name, lambda samples: _with_ones(samples, key), ratio, scale=scale)


def _with_ones(samples: Sequence[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([(float(sample[key]), 1.0) for sample in samples]).reshape(-1, 2)


def ratio(sums: np.ndarray) -> Any:
    """The first sum over the second: a mean over the samples that count."""
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Estimate:
    """A figure with what is known of its uncertainty; None where a single sample says nothing.

    ``how`` names the interval: Wilson's for shares of right answers (Wilson 1927), else the bootstrap's percentiles.
    """

    value: float
    error: float | None
    low: float | None
    high: float | None
    how: str
    examples: int

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {name: _finite(value) for name, value in asdict(self).items()}


def estimate(measure: Measure, samples: Sequence[dict[str, Any]], *, seed: int = 0) -> Estimate:
    """The value of a measure with its standard error and interval."""
    columns, count = measure.columns(samples), len(samples)
    value, scale = measure.of_columns(columns), measure.scale
    if count < 2:
        return Estimate(value, None, None, None, "one example", count)
    if _is_share(measure, columns):
        share, asked = value / scale, int(columns[:, 1].sum())
        error, (low, high) = math.sqrt(share * (1 - share) / (asked - 1)), wilson(share, asked)
        return Estimate(value, scale * error, scale * low, scale * high, "Wilson", count)
    values = _draws(measure, [columns], seed)[0]
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Estimate(value, None, None, None, "not defined", count)
    low, high = (float(end) for end in np.quantile(values, [ALPHA / 2, 1 - ALPHA / 2]))
    # The mean's standard error has a formula; the bootstrap's is the same but for the draw.
    is_mean = measure.value is ratio and bool((columns[:, 1] == 1).all())
    error = scale * float(columns[:, 0].std(ddof=1)) / math.sqrt(count) if is_mean else float(values.std(ddof=1))
    return Estimate(value, error, low, high, "bootstrap", count)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a share of ``count``, which is right near 0 and 1 too.

    >>> [round(end, 4) for end in wilson(0.5, 100)]
    [0.4038, 0.5962]
    """
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count)) / (1 + Z * Z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Difference:
    """Two models on the same problems: the second's figure less the first's.

    ``p`` is the probability of a difference at least as large were there none: the exact McNemar test where answers are
    right or wrong (then ``only_first`` and ``only_second`` count the problems that one alone has right), else the
    paired bootstrap, shifted to no difference (Koehn 2004, as sacrebleu has it). Of shares the interval is that of
    Agresti and Min, which says how large a difference could be where no problem tells two models apart, too.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    how: str
    examples: int
    only_first: int | None = None
    only_second: int | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {name: _finite(value) for name, value in asdict(self).items()}


def difference(
    measure: Measure, first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], *, seed: int = 0
) -> Difference:
    """Compare two models by one measure on the same problems, in the same order."""
    a, b = measure.columns(first), measure.columns(second)
    value, count = measure.of_columns(b) - measure.of_columns(a), len(first)
    if count < 2:
        return Difference(value, None, None, None, "one example", count)
    if _is_share(measure, a) and _is_share(measure, b):
        only_first, only_second = int((a[:, 0] > b[:, 0]).sum()), int((b[:, 0] > a[:, 0]).sum())
        asked = int(a[:, 1].sum())
        low, high = (measure.scale * end for end in paired_interval(only_first, only_second, asked))
        p = mcnemar(only_first, only_second)
        return Difference(value, low, high, p, "McNemar exact", count, only_first, only_second)
    draws = _draws(measure, [a, b], seed)
    changes = (draws[1] - draws[0])[np.isfinite(draws[1] - draws[0])]
    if not len(changes) or not math.isfinite(value):
        return Difference(value, None, None, None, "paired bootstrap", count)
    low, high = (float(end) for end in np.quantile(changes, [ALPHA / 2, 1 - ALPHA / 2]))
    # An exact tie in every draw is no evidence: the comparison has to allow for rounding.
    extreme = int((np.abs(changes - changes.mean()) >= abs(value) - 1e-12).sum())
    return Difference(value, low, high, (extreme + 1) / (len(changes) + 1), "paired bootstrap", count)


def paired_interval(only_first: int, only_second: int, count: int) -> tuple[float, float]:
    """Of the second share less the first, on the same problems (Agresti and Min 2005: half a problem is added to each
    of the four kinds, so that none is empty).

    >>> [round(end, 3) for end in paired_interval(0, 0, 30)]
    [-0.061, 0.061]
    """
    n, first, second = count + 2, only_first + 0.5, only_second + 0.5
    middle = (second - first) / n
    half = Z * math.sqrt(first + second - (second - first) ** 2 / n) / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of the exact McNemar test (1947): of the problems that one model alone has right, is each as likely
    to have them?

    >>> mcnemar(0, 5), mcnemar(3, 3), mcnemar(0, 0)
    (0.0625, 1.0, 1.0)
    """
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """P-values adjusted for how many there are (Holm 1979), in the order given.

    >>> holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted


def _is_share(measure: Measure, columns: np.ndarray) -> bool:
    """Whether it is the mean of answers that are right (1) or wrong (0), over the samples that count (1, others 0)."""
    if measure.value is not ratio or not np.isin(columns, (0.0, 1.0)).all():
        return False
    return bool((columns[:, 0] <= columns[:, 1]).all() and columns[:, 1].sum() > 1)


def _draws(measure: Measure, sides: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Values of a measure on resampled problems, (draws,) for each side; all sides have the same draws."""
    generator, count, scale = np.random.default_rng([seed, len(sides[0])]), len(sides[0]), measure.scale
    with np.errstate(divide="ignore", invalid="ignore"):
        if measure.of_rows:
            picks = [generator.integers(count, size=count) for _ in range(DRAWS // 4)]
            return [scale * np.array([float(measure.value(columns[pick])) for pick in picks]) for columns in sides]
        pieces = [[scale * measure.value(w @ columns) for columns in sides] for w in _weights(generator, count)]
    return [np.concatenate(side) for side in zip(*pieces, strict=True)]


def _weights(generator: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """How often each problem is drawn: (draws, problems), in pieces."""
    left, piece = DRAWS, max(1, CHUNK // count)
    while left > 0:
        size = min(piece, left)
        picks = generator.integers(count, size=(size, count))
        rows = np.arange(size)[:, None] * count
        yield np.bincount((picks + rows).ravel(), minlength=size * count).reshape(size, count).astype(float)
        left -= size


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
