"""What a length wants of joint tuning, so that composed models need no step of their own to be at their baselines.

How many joint steps, and how much more often than others the configurations are drawn that lack much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

import numpy as np

ENOUGH = {120: 1.0, 300: 1.5, 900: 1.5}
"""Steps of a baseline -> how many times as many joint steps, for all configurations together, were enough.

Measured on a small T5 (Multi30K, batches of 32, equal masks, eight configurations; 900 steps are an epoch). At 300
and at 900 steps as many are too few; 1.25 times leave most models just above their baselines (docs/results.md).
"""


TURNS = {120: 1.0, 1350: 4.0}
"""Joint steps -> how many times as often as the configuration that keeps most any is drawn at most.

Measured as :data:`ENOUGH` is. In a long phase the configurations that lack much are the last to reach their baselines,
and the others are there long before; in a short one equal turns brought all eight there, unequal ones seven.
"""


def enough(steps: int) -> float:
    """How many times the steps of one baseline joint tuning wants at this length.

    Between two lengths that were measured it goes with the logarithm of the length; beyond them it stays.

    >>> [round(enough(steps), 2) for steps in (60, 120, 200, 300, 5000)]
    [1.0, 1.0, 1.28, 1.5, 1.5]
    """
    return _at(steps, ENOUGH)


def most_turns(steps: int) -> float:
    """How many times as often as another any configuration may be drawn in a joint phase of ``steps``.

    >>> [round(most_turns(steps), 1) for steps in (120, 300, 1350, 9000)]
    [1.0, 2.1, 4.0, 4.0]
    """
    return _at(steps, TURNS)


def turns(most: float, sparsities: Sequence[float]) -> list[int]:
    """How often each configuration is drawn in one round: the one that keeps most once, no other over ``most`` times.

    In proportion to what they lack over what they keep.

    Args:
        sparsities: share of the target weights that each configuration removes.

    >>> turns(4.0, [0.5, 0.64, 0.78, 0.5, 0.99]), turns(1.0, [0.5, 0.64, 0.78])
    ([1, 2, 4, 1, 4], [1, 1, 1])
    """
    lacks = [sparsity / (1 - sparsity) if sparsity < 1 else float("inf") for sparsity in sparsities]
    least = min(lacks)
    return [1 if lack == least else max(1, round(min(most, lack / least if least else most))) for lack in lacks]


def _at(steps: int, known: Mapping[int, float]) -> float:
    return float(np.interp(log(max(steps, 1)), [log(length) for length in known], list(known.values())))


def joint_steps(steps: int, times: float | None) -> int:
    """Joint steps for all configurations together beside ``steps`` of one model; ``times`` of None goes by length."""
    return max(1, round((enough(steps) if times is None else times) * steps))


def about_length(steps: int, together: int) -> str:
    """What is known of a joint phase of ``together`` steps beside baselines of ``steps``, in a sentence."""
    known = ", ".join(f"{factor:g} times at {length} steps" for length, factor in ENOUGH.items())
    beyond = "; longer ones were not measured" if steps > max(ENOUGH) else ""
    return (
        f"Joint tuning: {together:,} steps for all configurations together, {together / steps:.3g} times those of one "
        f"baseline. Enough to do without a finish, on a small T5: {known}{beyond}."
    )
