"""Rules by which others spread a budget over the layers: what share of its heads and neurons each layer keeps.

Each is a :data:`~composer.choosing.choice.Rule`: for a size between 0 and 1 it gives a share for every layer, and no
layer has a smaller one for a larger size. They know nothing of what a width costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

Rule = Callable[[float], Callable[[str], float]]
"""Size of a model, from 0 to 1 -> path of a layer -> the share of its units that it keeps."""
RuleName = Literal["owl", "block-influence"]
SPREAD = 0.08
"""How far layers may lie from the mean share: λ of OWL, the authors' value."""


def uniform(size: float) -> Callable[[str], float]:
    """The same share everywhere."""
    return lambda _: size


def by_outliers(outliers: Mapping[str, float]) -> Rule:
    """OWL (Yin et al. 2023): layers with more outliers keep more, all within ``2 λ`` of each other.

    With the outlier ratio ``D_l`` of layer l brought to ``[0, 2 λ]``, ``d_l = 2 λ (D_l - min D) / (max D - min D)``,
    layer l keeps ``d_l - mean(d)`` more than the mean share; here shares end at 0 and 1.
    """
    least, most = min(outliers.values()), max(outliers.values())
    lifts = {layer: 2 * SPREAD * (d - least) / (most - least) if most > least else 0.0 for layer, d in outliers.items()}
    mean = sum(lifts.values()) / len(lifts)
    more = {layer: lift - mean for layer, lift in lifts.items()}

    def rule(size: float) -> Callable[[str], float]:
        base = size * (1 - min(more.values()) + max(more.values())) - max(more.values())
        return lambda layer: min(1.0, max(0.0, base + more.get(layer, 0.0)))

    return rule


def by_influence(influence: Mapping[str, float]) -> Rule:
    """ShortGPT (Men et al. 2024): whole layers go, those with the least influence on the stream first.

    Of the last layer that is touched a part stays, so that a budget between two numbers of layers is used up too.
    """
    places = {layer: place for place, layer in enumerate(sorted(influence, key=lambda one: influence[one]))}

    def rule(size: float) -> Callable[[str], float]:
        gone = (1 - size) * len(places)
        return lambda layer: min(1.0, max(0.0, places.get(layer, len(places)) + 1 - gone))

    return rule


RULES: Mapping[RuleName, Callable[[Mapping[str, float]], Rule]] = {"owl": by_outliers, "block-influence": by_influence}
"""Name of a rule -> what makes it of a figure for each layer (:mod:`composer.calibration.layers`)."""
