"""From rises and costs of widths to the widths of one configuration. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import ConfigError
from ..scheme.configurations import Spec
from ..scheme.layout import Stream
from ..scheme.shapes import rate_of
from ..shrinking.units import Units
from .program import Part, sharing_widths
from .rules import Rule, uniform
from .times import Times
from .widths import widths
from .wishes import WORDS, Wish

CRITERION = "obs"
"""What decides which heads and neurons go, where their number was chosen: its costs are those that were compared."""
NEARLY = 0.02
"""Choices whose predicted rise is within this part of the least are taken for equally good."""


@dataclass(frozen=True)
class Measured:
    """What one pass told of a model.

    Attributes:
        rises: path of a part -> rise of the loss for each of its :func:`~composer.choosing.widths.widths`.
        lengths: stream -> tokens of an example, on average.
        parameters: of the whole model.
        stored: bytes of its weights on disk.
        written: bytes of one weight of the models that are made of it.
    """

    rises: Mapping[str, Sequence[float]]
    lengths: Mapping[Stream, float]
    parameters: int
    stored: int
    written: int


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

    def __init__(self, units: Sequence[Units], measured: Measured, times: Times | None = None) -> None:
        """``times`` only where wishes are about time."""
        self.units, self.measured, self.times = units, measured, times
        self.names = [name for name in WORDS if name != "seconds" or times]

    def valued(self, rises: Mapping[str, Sequence[float]]) -> Menu:
        """The same widths with other rises of the loss."""
        return Menu(self.units, replace(self.measured, rises=rises), self.times)

    def budgets(self, wish: Wish, slower: float = 1.0) -> dict[str, float]:
        """Resource -> what all parts together may take of it; ``slower`` as in :meth:`choose`."""
        parts = self._parts(wish)
        if "seconds" in parts:
            parts["seconds"] /= slower
        return {name: part * self.whole[name] - self.rest[name] for name, part in parts.items()}

    def choose(self, wish: Wish, slower: float = 1.0, taken: Sequence[Choice] = ()) -> Choice:
        """The widths that keep within the wish and cost the loss least; of nearly equal ones those that share blocks.

        Args:
            slower: how many times as long models of about this size take as the table says.
            taken: other configurations, whose blocks need not be made again.

        Raises:
            ConfigError: no widths keep within it.
        """
        budgets = self.budgets(wish, slower)
        for name, budget in budgets.items():
            if budget < sum(min(part.costs[name]) for part in self.parts):
                raise ConfigError(f"{wish}: nobody can meet it: {self._least(name)}")
        chosen = sharing_widths(self.parts, budgets, [self.indices(one) for one in taken], NEARLY)
        if chosen is None:
            raise ConfigError(f"{wish}: nobody can meet all of it at once; each by itself can be met")
        return self.choice(chosen)

    def uniform(self, wish: Wish) -> Choice:
        """The same part of every attention and feed-forward, as large as the wish allows."""
        return self.spread(wish, uniform)

    def spread(self, wish: Wish, rule: Rule) -> Choice:
        """The largest model within the wish of those that a rule makes, each layer's parts of the same share.

        Args:
            rule: says what each layer keeps (:mod:`.rules`).
        """
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            model = self._nearest(rule(middle))
            inside = all(model.left[name] <= part for name, part in self._parts(wish).items())
            low, high = (middle, high) if inside else (low, middle)
        return self._nearest(rule(low))

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
            Part(units.path, self.measured.rises[units.path], {name: self._costs(units, name) for name in self.names})
            for units in self.units
        ]

    @cached_property
    def rest(self) -> dict[str, float]:
        """What is in no unit; of multiplications nothing, as those of the layers alone are counted."""
        known = self.measured
        outside = known.parameters - sum(units.parameters(units.count) for units in self.units)
        rest = {"macs": 0.0, "parameters": float(outside), "bytes": float(known.written * outside)}
        return rest | ({"seconds": self.times.rest} if self.times else {})

    @cached_property
    def whole(self) -> dict[str, float]:
        """What the base model takes."""
        whole = {name: sum(part.costs[name][0] for part in self.parts) + self.rest[name] for name in self.names}
        return {**whole, "bytes": float(self.measured.stored)}

    def _parts(self, wish: Wish) -> dict[str, float]:
        return wish.parts(self.whole.get("seconds"))

    def _costs(self, units: Units, name: str) -> list[float]:
        """By width."""
        kept = widths(units)
        if name == "macs":
            return [units.macs(k, self.measured.lengths) for k in kept]
        if name == "seconds":
            assert self.times is not None
            return [self.times.seconds(units, k) for k in kept]
        each = self.measured.written if name == "bytes" else 1
        return [float(each * units.parameters(k)) for k in kept]

    def _least(self, name: str) -> str:
        """What is left where no head and no neuron is, in words."""
        least = self.rest[name] + sum(min(part.costs[name]) for part in self.parts)
        part = least / self.whole[name]
        if name == "seconds":
            assert self.times is not None
            takers = [f"{where} {part * share:.0%}" for where, share in self.times.around.items()]
            return (
                f"at most {1 / part:.2f} times as fast ({1e3 * least:.3g} of {1e3 * self.whole[name]:.3g} ms), as "
                f"{' and '.join(takers)} of the time are in no head and no neuron"
            ).replace("%", " %")
        return (
            f"{part:.1%} of the {WORDS[name]} are in no head and no neuron (embeddings, norms, output layer)"
        ).replace("%", " %")

    def _nearest(self, share: Callable[[str], float]) -> Choice:
        """The widths nearest to these shares, by layer."""
        chosen = []
        for units in self.units:
            counts, wanted = widths(units), share(units.layer) * units.count
            chosen.append(min(range(len(counts)), key=lambda k: (abs(counts[k] - wanted), k)))
        return self.choice(chosen)

    def indices(self, choice: Choice) -> tuple[int, ...]:
        """Which of its widths each part has."""
        return tuple(widths(units).index(choice.kept[units.path]) for units in self.units)

    def choice(self, chosen: Sequence[int]) -> Choice:
        """The configuration in which each part has the width of this index."""
        pairs = list(zip(self.parts, chosen, strict=True))
        left = {n: (sum(p.costs[n][k] for p, k in pairs) + self.rest[n]) / self.whole[n] for n in self.names}
        kept = {u.path: widths(u)[k] for u, k in zip(self.units, chosen, strict=True)}
        return Choice(kept, sum(p.rises[k] for p, k in pairs), left)
