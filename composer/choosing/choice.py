"""From rises and costs of widths to the widths of one configuration. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import ConfigError
from ..scheme.configurations import Spec
from ..scheme.layout import Stream
from ..scheme.shapes import rate_of
from ..shrinking.units import Units
from .program import Part, best_widths
from .widths import widths
from .wishes import WORDS, Wish

CRITERION = "obs"
"""What decides which heads and neurons go, where their number was chosen: its costs are those that were compared."""


@dataclass(frozen=True)
class Measured:
    """What one pass told of a model.

    Attributes:
        rises: path of a part -> rise of the loss for each of its :func:`~composer.choosing.widths.widths`.
        lengths: stream -> tokens of an example, on average.
        parameters: of the whole model.
    """

    rises: Mapping[str, Sequence[float]]
    lengths: Mapping[Stream, float]
    parameters: int


@dataclass(frozen=True)
class Choice:
    """One configuration.

    Attributes:
        kept: path of a part -> how many of its units stay.
        rise: of the loss, as predicted: the sum over the parts.
        left: resource -> the part of the base model's that is left.
    """

    kept: Mapping[str, int]
    rise: float
    left: Mapping[str, float]


class Menu:
    """The widths that there are to choose from."""

    def __init__(self, units: Sequence[Units], measured: Measured) -> None:
        self.units, self.measured = units, measured

    def choose(self, wish: Wish) -> Choice:
        """The widths that keep within the wish and cost the loss least.

        Raises:
            ConfigError: no widths keep within it.
        """
        budgets = {name: part * self.whole[name] - self.rest[name] for name, part in wish.keep.items()}
        for name, budget in budgets.items():
            if budget < sum(min(part.costs[name]) for part in self.parts):
                least = self.rest[name] / self.whole[name]
                raise ConfigError(
                    f"cannot keep {wish}: {least:.1%} are in no head and no neuron (embeddings, norms, output layer)"
                )
        chosen = best_widths(self.parts, budgets)
        if chosen is None:
            raise ConfigError(f"cannot keep {wish}: not both at once")
        return self._choice(chosen)

    def uniform(self, wish: Wish) -> Choice:
        """The same part of every attention and feed-forward, as large as the wish allows."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            inside = all(self._evenly(middle).left[name] <= part for name, part in wish.keep.items())
            low, high = (middle, high) if inside else (low, middle)
        return self._evenly(low)

    def specs(self, choice: Choice) -> dict[str, Spec]:
        """The configuration; what stays whole is left out."""
        made: dict[str, Spec] = {}
        for units in self.units:
            if removed := units.count - choice.kept[units.path]:
                rate = rate_of(removed, units.count)
                shape = "neuron" if units.kind == "feed_forward" else None
                made[units.path] = Spec(rate=rate, granularity=shape, criterion=CRITERION)
        return made

    @cached_property
    def parts(self) -> list[Part]:
        """All parts with their rises and costs by width."""
        return [
            Part(
                units.path,
                self.measured.rises[units.path],
                {
                    "macs": [units.macs(kept, self.measured.lengths) for kept in widths(units)],
                    "parameters": [float(units.parameters(kept)) for kept in widths(units)],
                },
            )
            for units in self.units
        ]

    @cached_property
    def rest(self) -> dict[str, float]:
        """What is in no unit; of multiplications nothing, as those of the layers alone are counted."""
        inside = sum(units.parameters(units.count) for units in self.units)
        return {"macs": 0.0, "parameters": float(self.measured.parameters - inside)}

    @cached_property
    def whole(self) -> dict[str, float]:
        """What the base model takes."""
        return {name: sum(part.costs[name][0] for part in self.parts) + self.rest[name] for name in WORDS}

    def _evenly(self, part: float) -> Choice:
        chosen = []
        for units in self.units:
            counts = widths(units)
            chosen.append(min(range(len(counts)), key=lambda k: (abs(counts[k] - part * units.count), k)))
        return self._choice(chosen)

    def _choice(self, chosen: Sequence[int]) -> Choice:
        pairs = list(zip(self.parts, chosen, strict=True))
        left = {n: (sum(p.costs[n][k] for p, k in pairs) + self.rest[n]) / self.whole[n] for n in WORDS}
        kept = {u.path: widths(u)[k] for u, k in zip(self.units, chosen, strict=True)}
        return Choice(kept, sum(p.rises[k] for p, k in pairs), left)
