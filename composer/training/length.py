"""How many joint steps a length wants, so that composed models need no step of their own to be at their baselines."""

from __future__ import annotations

from math import log

ENOUGH = {120: 1.0, 900: 2.0}
"""Steps of a baseline -> how many times as many joint steps, for all configurations together, were enough.

Measured on a small T5 (Multi30K, batches of 32, equal masks, eight configurations; 900 steps are an epoch). At 300
and at 900 steps as many are too few; at 900 twice as many were enough for both models that were compared
(docs/results.md).
"""


def enough(steps: int) -> float:
    """How many times the steps of one baseline joint tuning wants at this length.

    Between the lengths that were measured it rises with the logarithm of the length; beyond them it stays.

    >>> [round(enough(steps), 2) for steps in (60, 120, 300, 900, 5000)]
    [1.0, 1.0, 1.45, 2.0, 2.0]
    """
    (short, least), (long, most) = min(ENOUGH.items()), max(ENOUGH.items())
    way = log(max(steps, 1) / short) / log(long / short)
    return least + (most - least) * min(1.0, max(0.0, way))


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
