"""From rises and costs of levels to the levels of one configuration. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from ..errors import ConfigError
from ..scheme.configurations import Spec
from ..shrinking.units import Units
from .choice import Choice, specs_of
from .measured import Measured
from .program import Part, sharing_widths
from .rules import Rule, uniform
from .times import Times
from .whole import never_taken
from .widths import levels, parameters
from .wishes import WORDS, Wish

NEARLY = 0.02
"""Choices whose predicted rise is within this part of the least are taken for equally good."""


class Menu:
    """The levels that there are to choose from.

    Attributes:
        levels: path of a part -> its levels, from whole to gone.
        rises: path of a part -> the predicted rise of the loss at each of them.
    """

    def __init__(
        self,
        units: Sequence[Units],
        measured: Measured,
        times: Times | None = None,
        rises: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """``times`` only where wishes are about time; ``rises`` by level, if they are not the measured ones."""
        self.units, self.measured, self.times = units, measured, times
        self.names = [name for name in WORDS if name != "seconds" or times]
        self.levels = {one.path: levels(one, weights=bool(measured.levels)) for one in units}
        self.rises = rises or measured.levels or measured.rises

    def units_alone(self, by_width: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
        """Rises by level, from those by width, with which no single weights are taken."""
        never, found = never_taken(by_width), {}
        for one in self.units:
            rises = iter(by_width[one.path])
            found[one.path] = [never if level.rate else next(rises) for level in self.levels[one.path]]
        return found

    def weights_alone(self) -> dict[str, list[float]]:
        """Rises by level with which no part of the heads or neurons of a sublayer is taken: all of them, or none."""
        never, found = never_taken(self.measured.levels), {}
        for one in self.units:
            own = zip(self.levels[one.path], self.measured.levels[one.path], strict=True)
            found[one.path] = [never if 0 < level.kept < one.count else rise for level, rise in own]
        return found

    def valued(self, rises: Mapping[str, Sequence[float]]) -> Menu:
        """The same levels with other rises of the loss."""
        return Menu(self.units, self.measured, self.times, rises)

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
        budgets = self.check(wish, slower)
        chosen = sharing_widths(self.parts, budgets, [self.indices(one) for one in taken], NEARLY)
        if chosen is None:
            raise ConfigError(f"{wish}: nobody can meet all of it at once; each by itself can be met")
        return self.choice(chosen)

    def check(self, wish: Wish, slower: float = 1.0) -> dict[str, float]:
        """The budgets of a wish, each of which can be met by itself.

        Raises:
            ConfigError: one of them cannot.
        """
        budgets = self.budgets(wish, slower)
        for name, budget in budgets.items():
            if budget < self._floor(name):
                raise ConfigError(f"{wish}: nobody can meet it: {self._least(name)}")
        return budgets

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
            made |= specs_of(units, choice.levels[units.path], choice.criterion)
        return made

    def pruned(self, choice: Choice) -> set[tuple[str, str]]:
        """What of it has to be made: each part that is not whole, with all that pruning is told of it."""
        every = ((one.path, specs_of(one, choice.levels[one.path], choice.criterion)) for one in self.units)
        return {(path, str(specs)) for path, specs in every if specs}

    def shares(self, choice: Choice) -> dict[str, float]:
        """By part, the share of it that is left."""
        return {one.path: choice.kept[one.path] / one.count * (1 - choice.levels[one.path].rate) for one in self.units}

    @cached_property
    def parts(self) -> list[Part]:
        """All parts with their rises and costs by level."""
        return [
            Part(units.path, self.rises[units.path], {name: self._costs(units, name) for name in self.names})
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
        """By level; single weights that are gone are zeros, which are multiplied and stored as any other."""
        own = self.levels[units.path]
        if name == "macs":
            return [units.macs(level.kept, self.measured.lengths) for level in own]
        if name == "seconds":
            assert self.times is not None
            return [self.times.seconds(units, level.kept) for level in own]
        if name == "bytes":
            return [float(self.measured.written * units.parameters(level.kept)) for level in own]
        return [float(parameters(units, level)) for level in own]

    def least(self, name: str) -> float:
        """What a model takes of a resource in which no head and no neuron is left."""
        return self.rest[name] + self._floor(name)

    def _floor(self, name: str) -> float:
        """What all parts together take of it at the least."""
        return sum(min(part.costs[name]) for part in self.parts)

    def _least(self, name: str) -> str:
        """The same in words."""
        least = self.least(name)
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
            own, wanted = self.levels[units.path], share(units.layer) * units.count
            order = [k for k, level in enumerate(own) if not level.rate]
            chosen.append(min(order, key=lambda k: (abs(own[k].kept - wanted), k)))
        return self.choice(chosen)

    def indices(self, choice: Choice) -> tuple[int, ...]:
        """Which of its levels each part has."""
        return tuple(self.levels[units.path].index(choice.levels[units.path]) for units in self.units)

    def choice(self, chosen: Sequence[int]) -> Choice:
        """The configuration in which each part has the level of this index."""
        pairs = list(zip(self.parts, chosen, strict=True))
        left = {n: (sum(p.costs[n][k] for p, k in pairs) + self.rest[n]) / self.whole[n] for n in self.names}
        levels = {p.name: self.levels[p.name][k] for p, k in pairs}
        return Choice(levels, sum(p.rises[k] for p, k in pairs), left)
