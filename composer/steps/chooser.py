"""Decides on the widths of every wish: the program's, others that lose less as measured, those of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..choosing.choice import Choice, Menu
from ..choosing.program import added
from ..choosing.rules import RULES
from ..choosing.search import prefer_shared, search
from ..choosing.whole import with_least, without
from ..choosing.wishes import Wish
from ..errors import ConfigError
from ..progress import Bar, Progress
from ..workspace import Workspace
from .choice_measures import Measures
from .part_times import part_times

CORRECTIONS = 2
"""How often the budget of a choice is made stricter that the clock finds slower than was wished."""
CLOSEST = 0.02
"""How near to a loss that is wished the fastest model is looked for, in times as fast."""
NEARLY = 0.01
"""Choices whose validation loss is within this part of the least are taken for equally good."""
BEST = 4
"""So many candidates of a wish learn together, the best before learning."""
FOUND = 3
"""So many of them may be the search's."""


class Chooser:
    """Decides on the widths of each wish, by what is measured.

    Attributes:
        candidates: for each wish, in their order: name -> what was thought of; ``"program"`` is there always.
        learnt: for each wish: name -> validation loss and metric after candidates of all wishes learnt together.
    """

    def __init__(
        self, space: Workspace, folder: Path, asked: Sequence[Wish], *, measure: bool, force: bool, progress: Progress
    ) -> None:
        if space.recipe.rerank and not measure:
            raise ConfigError("--rerank: the validation split decides, so not together with --no-measure")
        self.space, self.measure, self.progress, self.asked = space, measure, progress, asked
        self.measures = Measures(space, folder, force=force, progress=progress)
        for wish in asked:  # before anything that takes long
            self._limit(wish)
        timed = any(wish.timed or not wish.asked for wish in asked)
        times = part_times(space, self.measures.units, force=force, progress=progress) if timed else None
        self.menu = Menu(self.measures.units, self.measures.parts(), times)
        self.slower: dict[str, float] = {}
        self.candidates: list[dict[str, Choice]] = [{} for _ in asked]
        self.learnt: list[dict[str, dict[str, float]]] = [{} for _ in asked]

    def choose(self) -> list[Choice]:
        """The widths for each wish.

        Raises:
            ConfigError: a wish that nobody can meet.
        """
        programmed = list[Choice]()
        for i, wish in enumerate(self.asked):  # before anything that takes long: a wish may be refused
            programmed.append(self._programmed(wish, programmed))
            self.candidates[i]["program"] = programmed[-1]
        started = self._in_turn(self._started)
        return self._reranked(self._searched(started))

    def loss(self, choice: Choice) -> float:
        """On the validation split, pruned and repaired, without training."""
        return self.measures.loss(self.menu.specs(choice))["loss"]

    def blocks(self, choices: Sequence[Choice]) -> dict[str, int]:
        """How many pruned parts all configurations have, and how many of them are different ones."""
        whole = {units.path: units.count for units in self.measures.units}
        every = [(path, kept) for c in choices for path, kept in c.kept.items() if kept < whole[path]]
        return {"all": len(every), "different": len(set(every))}

    def sharing(self, choices: Sequence[Choice]) -> str:
        """What it saves that configurations have parts in common, in a sentence; empty where they have none."""
        blocks = self.blocks(choices)
        saved = blocks["all"] - blocks["different"]
        return (
            f"{blocks['different']} different pruned parts serve the {blocks['all']} of all configurations: each is "
            f"pruned and repaired once, {saved / blocks['all']:.0%} less work than one by one".replace("%", " %")
            if saved
            else ""
        )

    def name_of(self, i: int, choice: Choice) -> str:
        """Which of a wish's candidates a choice is."""
        return next(name for name, one in self.candidates[i].items() if one.kept == choice.kept)

    def _in_turn(self, decide: Any) -> list[Choice]:
        """One choice after the other, each knowing those before: their blocks need not be made again."""
        made = list[Choice]()
        for i, wish in enumerate(self.asked):
            made.append(decide(i, wish, tuple(made)))
        return made

    # The program ---------------------------------------------------------------------------------------------------

    def _programmed(self, wish: Wish, taken: Sequence[Choice]) -> Choice:
        limit = self._limit(wish)
        if limit is not None and not wish.asked:
            return self._fastest(wish, limit)
        choice = self._as_fast(wish, taken)
        if limit is None:
            return choice
        if (loss := self.loss(choice)) > limit:
            raise ConfigError(f"{wish}: nobody can meet it: the least loss found is {loss:.4g}, not {limit:.4g}")
        return choice

    def _limit(self, wish: Wish) -> float | None:
        return wish.loss_limit(self.measures.loss({})["loss"]) if wish.loss else None

    def _as_fast(self, wish: Wish, taken: Sequence[Choice]) -> Choice:
        """The widths for a wish; where the clock says that they are not fast enough, those for a stricter budget.

        Layers of many different widths take somewhat longer than the table's sums.
        """
        choice, name = self.menu.choose(wish, taken=taken), str(wish)
        for _ in range(CORRECTIONS if wish.timed and self.measure else 0):
            wanted, found = self._wanted(wish), self.measures.faster([choice])[0]
            if found["high"] >= wanted:
                break
            self.slower[name] = self.slower.get(name, 1.0) * wanted / found["value"]
            try:
                choice = self.menu.choose(wish, self.slower[name], taken)
            except ConfigError:
                break  # it stays as fast as it is, and is told so
        return choice

    def _fastest(self, wish: Wish, limit: float) -> Choice:
        """The fastest model whose measured loss is within the limit, found by halving."""
        best = self.menu.choose(Wish({"speedup": 1.0}))
        low, high = 1.0, self.menu.whole["seconds"] / self.menu.rest["seconds"]
        with self.progress.bar("within the loss", 1 + int((high - low) / CLOSEST).bit_length()) as bar:
            while high - low > CLOSEST:
                middle = (low + high) / 2
                choice = self.menu.choose(Wish({"speedup": middle}))
                inside = self.loss(choice) <= limit
                low, high, best = (middle, high, choice) if inside else (low, middle, best)
                bar.advance(f"{low:.2f} times as fast")
        return best

    def _wanted(self, wish: Wish) -> float:
        """How many times as fast as the base model a timed wish wants it."""
        return 1 / wish.parts(self.menu.whole["seconds"])["seconds"]

    def _budget(self, i: int) -> Wish:
        """What a choice has to keep within: the wish, or where that is about the loss alone the time that was found."""
        wish = self.asked[i]
        return wish if wish.asked else Wish({"speedup": 1 / self.candidates[i]["program"].left["seconds"]})

    # Others that may lose less -------------------------------------------------------------------------------------

    def _started(self, i: int, wish: Wish, taken: Sequence[Choice]) -> Choice:
        """The program's choice, or another one that is as fast as wished where that loses less as measured.

        Losses of parts that add up say nothing of what parts do to each other, so the program can be wrong.
        """
        known = self.candidates[i]
        known |= self._others(i, taken)
        if not self.measure:
            return known["program"]
        return self._emptied(
            i, self._best(i, {name: self.loss(choice) for name, choice in known.items()}, taken), taken
        )

    def _emptied(self, i: int, choice: Choice, taken: Sequence[Choice]) -> Choice:
        """The choice without the part of which it keeps least, then without the next, as long as the loss falls."""
        costs = {"program": self.menu.measured.rises, "Fisher of masks": self.measures.fisher()}
        own = costs.get(self.name_of(i, choice))
        while own and any(choice.kept.values()):
            gone = with_least(choice.kept, self.measures.units)
            fewer = self._by(without(own, gone), i, taken)
            self.candidates[i][f"without {len(gone)}"] = fewer
            if self.loss(fewer) >= self.loss(choice) or not self._meets(i, fewer):
                break
            choice = fewer
        return choice

    def _others(self, i: int, taken: Sequence[Choice]) -> dict[str, Choice]:
        """The uniform choice, what the program takes by other costs, and ways of others that are asked for.

        Without measuring the second is left out: nothing would tell which costs are better.
        """
        budget = self._budget(i)
        others = {"uniform": self.menu.uniform(budget)}
        for name in self.space.recipe.beside:
            others[name] = self.menu.spread(budget, RULES[name](self.measures.layers(name)))
        if self.measure:
            others["Fisher of masks"] = self._by(self.measures.fisher(), i, taken)
        return others

    def _by(self, costs: Mapping[str, Sequence[float]], i: int, taken: Sequence[Choice]) -> Choice:
        """The widths within a wish's budget by other costs than the program's."""
        menu, budget, slower = self.menu.valued(costs), self._budget(i), self.slower.get(str(self.asked[i]), 1.0)
        try:
            found = menu.choose(budget, slower, taken)
        except ConfigError:  # the clock wanted more than there is
            found = menu.choose(budget, taken=taken)
        return self.menu.choice(self.menu.indices(found))

    def _best(self, i: int, losses: Mapping[str, float], taken: Sequence[Choice]) -> Choice:
        """Of candidates that are as fast as was wished the one with the least loss.

        Of nearly equal ones it is the one that adds the fewest blocks to those of ``taken``; but it never has a higher
        loss than the uniform choice, where that is fast enough.
        """
        known = self.candidates[i]
        order = sorted(losses, key=lambda name: losses[name])
        fast = [name for name in order if name == "program" or self._meets(i, known[name])] or order
        limit = min(losses[fast[0]] * (1 + NEARLY), losses["uniform"] if "uniform" in fast else float("inf"))
        others = [self.menu.indices(choice) for choice in taken]
        good = [name for name in fast if losses[name] <= limit]
        return known[min(good, key=lambda name: added(self.menu.indices(known[name]), others))]

    def _meets(self, i: int, choice: Choice) -> bool:
        """Whether a choice is within the loss that is wished, and as fast, as measured."""
        wish, limit = self.asked[i], self._limit(self.asked[i])
        if limit is not None and self.loss(choice) > limit:
            return False
        return not wish.timed or self.measures.faster([choice])[0]["high"] >= self._wanted(wish)

    # The search ----------------------------------------------------------------------------------------------------

    def _searched(self, started: Sequence[Choice]) -> list[Choice]:
        """The choices after the search that is asked for; the validation split decides between before and after."""
        budget = self.space.recipe.search
        if not budget:
            return list(started)
        with self.progress.bar("search", budget * len(started)) as bar:
            return self._in_turn(lambda i, wish, taken: self._search(i, started[i], taken, bar))

    def _search(self, i: int, start: Choice, taken: Sequence[Choice], bar: Bar) -> Choice:
        recipe, known = self.space.recipe, self.candidates[i]
        limits = self.menu.budgets(self._budget(i), self.slower.get(str(self.asked[i]), 1.0))
        found = search(
            self.menu.parts,
            limits,
            self.menu.indices(start),
            lambda widths, sample: self._fitness(widths, sample, bar),
            recipe.search,
            recipe.seed,
            [self.menu.indices(known[name]) for name in recipe.beside],
        )
        best = prefer_shared(found, [self.menu.indices(one) for one in taken])
        after = self.menu.choice(best)
        if self.loss(after) >= self.loss(start):
            after = start
        known["search"] = after
        further = [one for one, _ in found.best if one != best][: FOUND - 1]
        known |= {f"search, {place}": self.menu.choice(one) for place, one in enumerate(further, 2)}
        return after

    def _fitness(self, widths: Sequence[int], sample: float, bar: Bar) -> float:
        count = max(1, round(sample * self.space.recipe.calibration_size))
        value = self.measures.fitness(self.menu.specs(self.menu.choice(widths)), widths, count)
        bar.advance(f"{value:.4g}")
        return value

    # Again after learning ------------------------------------------------------------------------------------------

    def _reranked(self, choices: Sequence[Choice]) -> list[Choice]:
        """The choices after the best candidates of all wishes have learnt together, where the recipe asks for it."""
        if not self.space.recipe.rerank:
            return list(choices)
        fields = [self._field(i, choice) for i, choice in enumerate(choices)]
        different = {self.menu.indices(c): c for field in fields for c in field.values()}
        tuned = self.measures.learnt([self.menu.specs(choice) for choice in different.values()])
        scores = dict(zip(different, tuned, strict=True))
        self.learnt = [{name: scores[self.menu.indices(c)] for name, c in field.items()} for field in fields]
        return self._in_turn(
            lambda i, _, taken: self._best(i, {n: score["loss"] for n, score in self.learnt[i].items()}, taken)
        )

    def _field(self, i: int, choice: Choice) -> dict[str, Choice]:
        """The best candidates of a wish before learning, the choice among them; each once."""
        known = self.candidates[i]
        order = sorted(known, key=lambda name: (known[name].kept != choice.kept, self.loss(known[name])))
        field: dict[str, Choice] = {}
        for name in order:
            new = all(known[name].kept != one.kept for one in field.values())
            if len(field) < BEST and new and (not field or self._meets(i, known[name])):
                field[name] = known[name]
        return field

    # What is told --------------------------------------------------------------------------------------------------

    def summary(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """What is told of the choices, with the uniform ones beside them."""
        even = [known["uniform"] for known in self.candidates]
        both = [*choices, *even]
        faster = self.measures.faster(both) if self.measure else [None] * len(both)
        rows = [
            {
                "wish": {**wish.asked, **({"loss_at_most": wish.loss} if wish.loss else {})},
                **self._row(choice, faster[i]),
                "taken": self.name_of(i, choice),
                "steps": self._steps(i),
                "learnt": self.learnt[i],
                "uniform": self._row(even[i], faster[len(choices) + i]),
            }
            for i, (wish, choice) in enumerate(zip(self.asked, choices, strict=True))
        ]
        times = self.menu.times
        return {
            "model": self.space.base.name,
            "units": {units.path: units.count for units in self.measures.units},
            "time": asdict(self.measures.setting),
            "choices": rows,
            "dense": self.measures.loss({}) if self.measure else None,
            "metric": self.space.task.main_metric,
            "times": times.plain() if times else None,
            "blocks": self.blocks(choices),
            "sharing": self.sharing(choices),
            "rerank": self.space.recipe.rerank,
        }

    def _steps(self, i: int) -> dict[str, float]:
        """What each way of choosing brought: validation losses without training."""
        return {name: self.loss(choice) for name, choice in self.candidates[i].items()} if self.measure else {}

    def _row(self, choice: Choice, faster: Mapping[str, Any] | None) -> dict[str, Any]:
        measured = self.measures.loss(self.menu.specs(choice)) if self.measure else None
        return {**asdict(choice), "measured": measured, "faster": faster}
