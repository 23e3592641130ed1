"""Intervals of what tasks measure, from the figures of each example (``Score.samples``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tasks.task import Score, Task
from .uncertainty import Measure, estimate


def intervals_of(score: Score, task: Task) -> dict[str, list[float]]:
    """Metric -> ends of its 95 % interval, of those whose value can be had from the examples.

    Shares of right answers have Wilson's, all others the bootstrap's percentiles (:mod:`.uncertainty`).
    """
    if not score.samples:
        return {}
    found: dict[str, list[float]] = {}
    for measure in _measures(score.samples, task):
        value = score.metrics.get(measure.name)
        if value is None:
            continue
        said = estimate(measure, score.samples)
        # A task of another package may mean another thing by the same name: then the values differ.
        if said.low is not None and said.high is not None and math.isclose(said.value, value, abs_tol=1e-6):
            found[measure.name] = [said.low, said.high]
    return found


def _measures(samples: Sequence[dict[str, Any]], task: Task) -> Sequence[Measure]:
    """What the examples can be measured by: it shows in what is known of the first."""
    from .suites.glue import ACCURACY
    from .suites.language import PERPLEXITY
    from .suites.squad import NO_ANSWER_EXACT, PARTS, WHOLE
    from .suites.translation import CHRF, bleu_of

    keys = samples[0].keys()
    if "nats" in keys:
        return [PERPLEXITY]
    if "exact" in keys:
        return [*WHOLE, *PARTS, NO_ANSWER_EXACT]
    if "right" in keys:
        return [ACCURACY, _f1_of(samples)]
    options = getattr(task, "options", None)
    return [bleu_of(getattr(options, "target_lang", None) or ""), CHRF]


def _f1_of(samples: Sequence[dict[str, Any]]) -> Measure:
    """F1 of class 1 of two; of more the mean over the classes that occur, as :class:`.ClassificationTask` has it."""
    from .suites.glue import F1

    if samples[0]["classes"] == 2:
        return F1
    classes = sorted({sample[key] for sample in samples for key in ("gold", "answer")})

    def counts(rows: Sequence[dict[str, Any]]) -> np.ndarray:
        gold, answer = (np.array([[row[key] == c for c in classes] for row in rows]) for key in ("gold", "answer"))
        return np.concatenate([gold & answer, gold, answer], axis=1).astype(float)

    def mean(sums: np.ndarray) -> Any:
        both, gold, answer = np.split(sums, 3, axis=-1)
        there = gold + answer > 0
        each = np.divide(2 * both, gold + answer, out=np.zeros_like(both), where=there)
        return each.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)

    return Measure("f1", counts, mean)
