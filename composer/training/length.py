"""How many joint steps a length wants, so that composed models need no step of their own to be at their baselines."""

from __future__ import annotations

from math import log

import numpy as np

ENOUGH = {120: 1.0, 300: 1.5, 900: 1.5}
"""Steps of a baseline -> how many times as many joint steps, for all configurations together, were enough.

Measured on a small T5 (Multi30K, batches of 32, equal masks, eight configurations; 900 steps are an epoch). At 300
and at 900 steps as many are too few; 1.25 times leave most models just above their baselines (docs/results.md).
"""


def enough(steps: int) -> float:
    """How many times the steps of one baseline joint tuning wants at this length.

    Between two lengths that were measured it goes with the logarithm of the length; beyond them it stays.

    >>> [round(enough(steps), 2) for steps in (60, 120, 200, 300, 5000)]
    [1.0, 1.0, 1.28, 1.5, 1.5]
    """
    return float(np.interp(log(max(steps, 1)), [log(length) for length in ENOUGH], list(ENOUGH.values())))


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
