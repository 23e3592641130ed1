"""`compose choose`: from wishes to configurations, by what every attention and feed-forward costs at every width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..choosing.choice import Choice, Menu
from ..choosing.search import prefer_shared, search
from ..choosing.wishes import Wish, read_wishes
from ..errors import ConfigError
from ..files.jsonfile import write_json
from ..files.records import record
from ..progress import SILENT, Bar, Progress
from ..scheme.configurations import Configurations, write_configurations
from ..workspace import Given, Workspace
from .choice_measures import Measures
from .configure import same_json
from .outcome import Outcome
from .part_times import part_times

CORRECTIONS = 2
"""How often the budget of a choice is made stricter that the clock finds slower than was wished."""
CLOSEST = 0.02
"""How near to a loss that is wished the fastest model is looked for, in times as fast."""


def choose(
    recipe: Given,
    *,
    output: Path | None = None,
    measure: bool = True,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Write ``conf.json`` with one configuration per wish of the recipe, and ``choice.json`` with what decided it.

    One pass over the calibration sample gives what every attention and feed-forward costs the loss at every width
    (:mod:`composer.calibration.rises`), and where wishes are about time a table of seconds what it takes there
    (:mod:`.part_times`); an integer program chooses the widths (:mod:`composer.choosing.program`). What was measured is
    kept as it comes: a call that was killed, or with other wishes, goes on from there.

    Args:
        measure: also measure every choice, and the uniform one within the same wish: loss after pruning and repair in
            closed form, on the validation split, and how many times as fast it is.

    Raises:
        ConfigError: wishes that contradict each other or nobody can meet.
        InputError: a machine that is too noisy to measure time.
        OutputError: ``conf.json`` has other content.
    """
    space = Workspace.of(recipe)
    asked = read_wishes(space.recipe)
    path = output or space.conf
    chooser = _Chooser(space, path.parent, asked, measure=measure, force=force, progress=progress)
    programmed = [chooser.choose(wish) for wish in asked]
    started = [chooser.start(wish, choice) for wish, choice in zip(asked, programmed, strict=True)]
    choices = chooser.searched(asked, started)
    content = Configurations(
        model=space.stored_name(path.parent), configurations=[{**chooser.menu.specs(choice)} for choice in choices]
    )
    fresh = not same_json(path, content.model_dump(exclude_none=True), force)
    summary = chooser.summary(asked, choices, programmed)
    file = path.with_name("choice.json")
    told = {**summary, "provenance": record(chooser.measures.inputs, recipe=space.resolved())}
    write_json(file, told)
    _draw(told, file)
    if fresh:
        write_configurations(path, content)
    return Outcome(path, fresh, {**summary, "choice": str(file)})


def _draw(told: Mapping[str, Any], file: Path) -> None:
    """The page and the picture beside ``choice.json``."""
    from ..report.choices import draw, write_page_of

    write_page_of(told, file.with_suffix(".html"))
    draw(told, file.with_suffix(".png"))


class _Chooser:
    """Decides on the widths of each wish, by what is measured."""

    def __init__(
        self, space: Workspace, folder: Path, asked: Sequence[Wish], *, measure: bool, force: bool, progress: Progress
    ) -> None:
        self.space, self.measure, self.progress = space, measure, progress
        self.measures = Measures(space, folder, force=force, progress=progress)
        timed = any(wish.timed or not wish.asked for wish in asked)
        times = part_times(space, self.measures.units, force=force, progress=progress) if timed else None
        self.menu = Menu(self.measures.units, self.measures.parts(), times)
        self.slower: dict[str, float] = {}
        self._known: dict[str, dict[str, Choice]] = {}

    def choose(self, wish: Wish) -> Choice:
        """The widths for a wish.

        Raises:
            ConfigError: nobody can meet it.
        """
        limit = wish.loss_limit(self.measures.loss({})["loss"]) if wish.loss else None
        if limit is not None and not wish.asked:
            return self._fastest(wish, limit)
        choice = self._as_fast(wish)
        if limit is None:
            return choice
        if (loss := self._loss(choice)) > limit:
            raise ConfigError(f"{wish}: nobody can meet it: the least loss found is {loss:.4g}, not {limit:.4g}")
        return choice

    def _blocks(self, choices: Sequence[Choice]) -> dict[str, int]:
        """How many pruned parts all configurations have, and how many of them are different ones."""
        whole = {units.path: units.count for units in self.measures.units}
        every = [(path, kept) for c in choices for path, kept in c.kept.items() if kept < whole[path]]
        return {"all": len(every), "different": len(set(every))}

    def _as_fast(self, wish: Wish) -> Choice:
        """The widths for a wish; where the clock says that they are not fast enough, those for a stricter budget.

        Layers of many different widths take somewhat longer than the table's sums.
        """
        choice, name = self.menu.choose(wish), str(wish)
        for _ in range(CORRECTIONS if wish.timed and self.measure else 0):
            wanted, found = self._wanted(wish), self.measures.faster([choice])[0]
            if found["high"] >= wanted:
                break
            self.slower[name] = self.slower.get(name, 1.0) * wanted / found["value"]
            try:
                choice = self.menu.choose(wish, self.slower[name])
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
                inside = self._loss(choice) <= limit
                low, high, best = (middle, high, choice) if inside else (low, middle, best)
                bar.advance(f"{low:.2f} times as fast")
        return best

    def start(self, wish: Wish, choice: Choice) -> Choice:
        """The program's choice, or another one that is as fast as wished where that loses less as measured.

        Losses of parts that add up say nothing of what parts do to each other, so the program can be wrong. The others
        are the uniform choice, and what the program takes with the Fisher information of masks as costs.
        """
        if not self.measure:
            return choice
        for rival in self._rivals(wish, choice).values():
            less = self._loss(rival) < self._loss(choice)
            if less and not (wish.timed and self.measures.faster([rival])[0]["high"] < self._wanted(wish)):
                choice = rival
        return choice

    def _rivals(self, wish: Wish, choice: Choice) -> dict[str, Choice]:
        """By name, made once for a wish; ``choice`` is the program's own. Without measuring the uniform one alone."""
        name, budget = str(wish), _budget(wish, choice)
        if name not in self._known:
            self._known[name] = {"uniform": self.menu.uniform(budget)}
            if self.measure:
                self._known[name]["Fisher of masks"] = self._by_fisher(budget, self.slower.get(name, 1.0))
        return self._known[name]

    def _by_fisher(self, budget: Wish, slower: float) -> Choice:
        """The widths within a budget by the Fisher information of masks."""
        menu = self.menu.valued(self.measures.fisher())
        try:
            found = menu.choose(budget, slower)
        except ConfigError:  # the clock wanted more than there is
            found = menu.choose(budget)
        return self.menu.choice(self.menu.indices(found))

    def searched(self, asked: Sequence[Wish], choices: Sequence[Choice]) -> list[Choice]:
        """The choices after the search that the recipe asks for; the validation split decides between before and after.

        Wishes come one after the other, and among nearly equal candidates those are preferred that share blocks with
        the choices made before.
        """
        budget, made = self.space.recipe.search, list[Choice]()
        if not budget:
            return list(choices)
        with self.progress.bar("search", budget * len(choices)) as bar:
            for wish, choice in zip(asked, choices, strict=True):
                limits = self.menu.budgets(_budget(wish, choice), self.slower.get(str(wish), 1.0))
                found = search(
                    self.menu.parts,
                    limits,
                    self.menu.indices(choice),
                    lambda widths, sample: self._fitness(widths, sample, bar),
                    budget,
                    self.space.recipe.seed,
                )
                after = self.menu.choice(prefer_shared(found, [self.menu.indices(one) for one in made]))
                made.append(after if self._loss(after) < self._loss(choice) else choice)
        return made

    def _fitness(self, widths: Sequence[int], sample: float, bar: Bar) -> float:
        count = max(1, round(sample * self.space.recipe.calibration_size))
        value = self.measures.fitness(self.menu.specs(self.menu.choice(widths)), widths, count)
        bar.advance(f"{value:.4g}")
        return value

    def _loss(self, choice: Choice) -> float:
        """On the validation split, pruned and repaired, without training."""
        return self.measures.loss(self.menu.specs(choice))["loss"]

    def _wanted(self, wish: Wish) -> float:
        """How many times as fast as the base model a timed wish wants it."""
        return 1 / wish.parts(self.menu.whole["seconds"])["seconds"]

    def summary(self, asked: Sequence[Wish], choices: Sequence[Choice], programmed: Sequence[Choice]) -> dict[str, Any]:
        """What is told of the choices, with the uniform ones beside them."""
        rivals = [self._rivals(wish, choice) for wish, choice in zip(asked, programmed, strict=True)]
        even = [some["uniform"] for some in rivals]
        both = [*choices, *even]
        faster = self.measures.faster(both) if self.measure else [None] * len(both)
        rows = [
            {
                "wish": {**wish.asked, **({"loss_at_most": wish.loss} if wish.loss else {})},
                **self._row(choice, faster[i]),
                "steps": self._steps({"uniform": same, "program": programmed[i], "search": choice, **rivals[i]}),
                "uniform": self._row(same, faster[len(choices) + i]),
            }
            for i, (wish, choice, same) in enumerate(zip(asked, choices, even, strict=True))
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
            "blocks": self._blocks(choices),
        }

    def _steps(self, steps: Mapping[str, Choice]) -> dict[str, float]:
        """What each step of choosing brought: validation losses."""
        left = {name: choice for name, choice in steps.items() if name != "search" or self.space.recipe.search}
        return {name: self._loss(choice) for name, choice in left.items()} if self.measure else {}

    def _row(self, choice: Choice, faster: Mapping[str, Any] | None) -> dict[str, Any]:
        measured = self.measures.loss(self.menu.specs(choice)) if self.measure else None
        return {**asdict(choice), "measured": measured, "faster": faster}


def _budget(wish: Wish, choice: Choice) -> Wish:
    """What a choice has to keep within: the wish, or where that is about the loss alone the time that was found."""
    return wish if wish.asked else Wish({"speedup": 1 / choice.left["seconds"]})
