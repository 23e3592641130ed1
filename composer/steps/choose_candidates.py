"""Candidates for one wish of `compose choose`: the program's widths, and others that may lose less as measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from ..choosing.choice import OF_LOSS, Choice
from ..choosing.menu import Menu
from ..choosing.rules import RULES
from ..choosing.whole import with_least, without
from ..choosing.wishes import Wish
from ..errors import ConfigError
from .choice_measures import Measures

CORRECTIONS = 2
"""How often the budget of a choice is made stricter that the clock finds slower than was wished."""
CLOSEST = 0.02
"""How near to a loss that is wished the fastest or smallest model is looked for, in times as fast or small."""
HEADS = "heads and neurons"
"""The candidate without single weights, where these may go."""
APART = ", apart"
"""Ends the names of candidates that share parts with other configurations by chance only."""
MASKED = ", masks by loss"
"""Ends the name of the candidate whose heads and neurons go by moments that know the loss."""
NEARLY = 0.01
"""Choices whose validation loss is within this part of the least are taken for equally good."""
BEST = 4
"""So many candidates of a wish learn together, the best before learning."""


class WishCandidates:
    """The candidates of one wish. ``taken`` are always the configurations of the wishes before it.

    Attributes:
        known: name -> what was thought of; ``"program"`` and ``"uniform"`` are there always.
        slower: how many times as long as the table of seconds says models of about this size take.
    """

    def __init__(self, wish: Wish, menu: Menu, measures: Measures, *, measure: bool) -> None:
        """Nothing is thought of yet; ``measure`` says whether the clock and the validation split decide."""
        self.wish, self.menu, self.measures, self.measure = wish, menu, measures, measure
        self.known: dict[str, Choice] = {}
        self.slower = 1.0

    def loss(self, choice: Choice) -> float:
        """On the validation split, pruned and repaired, without training."""
        return self.measures.loss(self.menu.specs(choice))["loss"]

    def name_of(self, choice: Choice) -> str:
        """Which of the candidates a choice is."""
        return next(name for name, one in self.known.items() if one.same(choice))

    @cached_property
    def budget(self) -> Wish:
        """What a choice has to keep within: the wish; where that is about the loss alone the time or size found."""
        return self.wish if self.wish.asked else _times(self._spared, 1 / self.known["program"].left[self._spared])

    @property
    def _spared(self) -> str:
        """What a wish about the loss alone wants as little of as can be."""
        return "parameters" if self.measures.space.recipe.unstructured else "seconds"

    def programmed(self, taken: Sequence[Choice]) -> Choice:
        """What the integer program takes, which the clock may make stricter.

        Raises:
            ConfigError: a wish that nobody can meet. Whether its loss can be met is seen when all candidates are there.
        """
        self.known["program"] = choice = self._programmed(self.measures.limit(self.wish), taken)
        return choice

    def _programmed(self, limit: float | None, taken: Sequence[Choice]) -> Choice:
        if limit is not None and not self.wish.asked:
            return self._least(limit)
        choice = self._as_fast(taken)
        if not self.measure:
            self._check_loss(choice)
        return choice

    def _check_loss(self, choice: Choice) -> None:
        """Refuse the best choice where it loses more than is wished."""
        limit = self.measures.limit(self.wish)
        if limit is not None and (loss := self.loss(choice)) > limit:
            raise ConfigError(
                f"{self.wish}: nobody can meet both: of all that keep within {replace(self.wish, loss=None)} the least "
                f"loss found is {loss:.4g}; wished: at most {limit:.4g}"
            )

    def _as_fast(self, taken: Sequence[Choice]) -> Choice:
        """The widths for a wish; where the clock says that they are not fast enough, those for a stricter budget.

        Layers of many different widths take somewhat longer than the table's sums.
        """
        choice = self.menu.choose(self.wish, taken=taken)
        for _ in range(CORRECTIONS if self.wish.timed and self.measure else 0):
            found = self.measures.faster([choice])[0]
            if found["high"] >= self._wanted:
                break
            self.slower *= self._wanted / found["value"]
            try:
                choice = self.menu.choose(self.wish, self.slower, taken)
            except ConfigError:
                break  # it stays as fast as it is, and is told so
        return choice

    def _least(self, limit: float) -> Choice:
        """The fastest model whose measured loss is within the limit, found by halving; where single weights may go,
        which makes nothing faster, the smallest.
        """
        word = "fast" if self._spared == "seconds" else "small"
        best = self.menu.choose(_times(self._spared, 1.0))
        low, high = 1.0, self.menu.whole[self._spared] / self.menu.least(self._spared)
        steps = 1 + int((high - low) / CLOSEST).bit_length()
        with self.measures.progress.bar("within the loss", steps) as bar:
            while high - low > CLOSEST:
                middle = (low + high) / 2
                choice = self.menu.choose(_times(self._spared, middle))
                inside = self.loss(choice) <= limit
                low, high, best = (middle, high, choice) if inside else (low, middle, best)
                bar.advance(f"{low:.2f} times as {word}")
        return best

    @property
    def _wanted(self) -> float:
        """How many times as fast as the base model a timed wish wants it."""
        return 1 / self.wish.parts(self.menu.whole["seconds"])["seconds"]

    def started(self, taken: Sequence[Choice]) -> Choice:
        """The program's choice, or another one that is as fast as wished where that loses less as measured.

        Losses of parts that add up say nothing of what parts do to each other, so the program can be wrong. Without
        measuring nothing would tell which costs are better, so then others by the program are left out.
        """
        self.known["uniform"] = self.menu.uniform(self.budget)
        for name in self.measures.space.recipe.beside:
            self.known[name] = self.menu.spread(self.budget, RULES[name](self.measures.layers(name)))
        if not self.measure:
            return self.known["program"]
        self.known |= {name: self._by(rises, taken) for name, rises in self._costs.items() if name != "program"}
        self.known |= self._apart() if taken else {}
        for costs in self._costs:
            self._empty(costs, taken)
        self._masked_by_loss(taken)
        best = self.best(self._losses, taken)
        self._check_loss(best)
        return best

    @property
    def _losses(self) -> dict[str, float]:
        return {name: self.loss(one) for name, one in self.known.items()}

    def _masked_by_loss(self, taken: Sequence[Choice]) -> None:
        """Also think of the best by each kind of costs with as many other units: those that the loss misses least."""
        if self.measures.space.recipe.metric == "loss":  # all moments do
            return
        losses = self._losses
        for costs in self._costs:
            best = self.best({name: loss for name, loss in losses.items() if name.startswith(costs)}, taken)
            other = replace(best, criterion=OF_LOSS)
            if self.menu.pruned(other) != self.menu.pruned(best):  # some part loses units
                self.known.setdefault(self.name_of(best) + MASKED, other)

    @property
    def _costs(self) -> dict[str, Mapping[str, Sequence[float]]]:
        """Rises of the loss by level, by the name of the candidate that the program takes by them.

        Where single weights may go, what it would be without them is a candidate too, and so is what it is with nothing
        else: one rule for both kinds is no guarantee.
        """
        menu = self.menu
        costs: dict[str, Mapping[str, Sequence[float]]] = {"program": menu.rises}
        if menu.measured.levels:
            costs |= {HEADS: menu.units_alone(menu.measured.rises), "single weights": menu.weights_alone()}
        return costs | {"Fisher of masks": menu.units_alone(self.measures.fisher())}

    def _apart(self) -> dict[str, Choice]:
        """What the program takes where it need not share parts with other configurations, if that is something else.

        A predicted rise that is nearly the least is not always a measured loss that is.
        """
        alone = {name: self._by(rises, ()) for name, rises in self._costs.items()}
        return {name + APART: one for name, one in alone.items() if one.levels != self.known[name].levels}

    def _empty(self, name: str, taken: Sequence[Choice]) -> None:
        """Also think of what the program takes by these costs without the part of which it keeps least, then without
        the next, as long as the loss falls.
        """
        choice, own = self.known[name], self._costs[name]
        least = self.loss(choice)
        while any(choice.kept.values()):
            gone = with_least(self.menu.shares(choice))
            fewer = self._by(without(own, gone), taken)
            self.known[f"{name}, without {len(gone)}"] = fewer
            if self.loss(fewer) >= least:
                break
            choice, least = fewer, self.loss(fewer)

    def _by(self, costs: Mapping[str, Sequence[float]], taken: Sequence[Choice]) -> Choice:
        """The widths within the budget by other costs than the program's."""
        menu = self.menu.valued(costs)
        try:
            found = menu.choose(self.budget, self.slower, taken)
        except ConfigError:  # the clock wanted more than there is
            found = menu.choose(self.budget, taken=taken)
        return self.menu.choice(self.menu.indices(found))

    def best(self, losses: Mapping[str, float], taken: Sequence[Choice]) -> Choice:
        """Of candidates that are as fast as was wished the one with the least loss.

        Of nearly equal ones it is the one that adds the fewest blocks to those of ``taken``; but it never has a higher
        loss than the uniform choice, where that is fast enough.
        """
        order = sorted(losses, key=lambda name: losses[name])
        good, limit = list[str](), float("inf")
        for name in order:
            if losses[name] > limit:  # the clock need not be asked
                break
            if self._within_loss(self.known[name]) and (name == "program" or self._fast_enough(self.known[name])):
                good.append(name)
                limit = losses[name] if name == "uniform" else min(limit, losses[name] * (1 + NEARLY))
        there = set[tuple[str, str]]().union(*map(self.menu.pruned, taken))
        return self.known[min(good or order[:1], key=lambda name: len(self.menu.pruned(self.known[name]) - there))]

    def meets(self, choice: Choice) -> bool:
        """Whether a choice is within the loss that is wished, and as fast, as measured."""
        return self._within_loss(choice) and self._fast_enough(choice)

    def _within_loss(self, choice: Choice) -> bool:
        limit = self.measures.limit(self.wish)
        return limit is None or self.loss(choice) <= limit

    def _fast_enough(self, choice: Choice) -> bool:
        return not self.wish.timed or self.measures.faster([choice])[0]["high"] >= self._wanted

    def field(self, choice: Choice) -> dict[str, Choice]:
        """The best candidates before learning, the choice among them; each once."""
        order = sorted(self.known, key=lambda n: (not self.known[n].same(choice), self.loss(self.known[n])))
        field: dict[str, Choice] = {}
        for name in order:
            new = not any(self.known[name].same(one) for one in field.values())
            if len(field) < BEST and new and (not field or self.meets(self.known[name])):
                field[name] = self.known[name]
        return field


def _times(resource: str, times: float) -> Wish:
    """For so many times as fast, or as small."""
    return Wish({"speedup": times} if resource == "seconds" else {"keep_parameters": 1 / times})
