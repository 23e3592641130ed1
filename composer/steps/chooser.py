"""Decides on the widths of all wishes: the candidates of each in turn, then a search, then learning together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..choosing.choice import Choice
from ..choosing.measured import Measured
from ..choosing.menu import Menu
from ..choosing.search import prefer_shared, search
from ..choosing.wishes import Wish
from ..errors import ConfigError
from ..progress import Bar, Progress
from ..workspace import Workspace
from .choice_measures import Measures
from .choose_candidates import WishCandidates
from .choose_summary import summary
from .part_times import part_times

FOUND = 3
"""So many of the candidates that learn together may be the search's."""


class Chooser:
    """Decides on the widths of each wish, by what is measured.

    Attributes:
        wishes: the candidates of each wish, in their order.
        learnt: for each wish: name -> validation loss and metric after candidates of all wishes learnt together.
    """

    def __init__(
        self, space: Workspace, folder: Path, asked: Sequence[Wish], *, measure: bool, force: bool, progress: Progress
    ) -> None:
        if space.recipe.rerank and not measure:
            raise ConfigError("--rerank: the validation split decides, so not together with --no-measure")
        self.recipe, self.progress = space.recipe, progress
        self.measures = Measures(space, folder, force=force, progress=progress)
        # Before anything that takes long.
        unseen = Menu(self.measures.units, Measured.unseen(self.measures.units, **self.measures.sizes()))
        for wish in asked:
            unseen.check(wish.untimed)
        for wish in asked:
            self.measures.limit(wish)
        timed = any(wish.timed or (not wish.asked and not space.recipe.unstructured) for wish in asked)
        times = part_times(space, self.measures.units, force=force, progress=progress) if timed else None
        self.menu = Menu(self.measures.units, self.measures.parts(), times)
        self.wishes = [WishCandidates(wish, self.menu, self.measures, measure=measure) for wish in asked]
        self.learnt: list[dict[str, dict[str, float]]] = [{} for _ in asked]

    def choose(self) -> list[Choice]:
        """The widths for each wish.

        Raises:
            ConfigError: a wish that nobody can meet.
        """
        # The program's of all wishes come before anything that takes long: a wish may be refused.
        self._in_turn(lambda i, taken: self.wishes[i].programmed(taken))
        with self.progress.bar("candidates", len(self.wishes)) as bar:
            started = self._in_turn(lambda i, taken: self._started(i, taken, bar))
        return self._reranked(self._searched(started))

    def summary(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """What is told of the choices, with the uniform ones beside them."""
        return summary(self.menu, self.wishes, choices, self.learnt)

    def _in_turn(self, decide: Callable[[int, Sequence[Choice]], Choice]) -> list[Choice]:
        """One choice after the other, each knowing those before: their blocks need not be made again."""
        made = list[Choice]()
        for i in range(len(self.wishes)):
            made.append(decide(i, tuple(made)))
        return made

    def _started(self, i: int, taken: Sequence[Choice], bar: Bar) -> Choice:
        one = self.wishes[i]
        choice = one.started(taken)
        bar.advance(f"{one.wish}: {one.name_of(choice)}")
        return choice

    # The search ----------------------------------------------------------------------------------------------------

    def _searched(self, started: Sequence[Choice]) -> list[Choice]:
        """The choices after the search that is asked for; the validation split decides between before and after."""
        if not self.recipe.search:
            return list(started)
        with self.progress.bar("search", self.recipe.search * len(started)) as bar:
            return self._in_turn(lambda i, taken: self._search(self.wishes[i], started[i], taken, bar))

    def _search(self, one: WishCandidates, start: Choice, taken: Sequence[Choice], bar: Bar) -> Choice:
        recipe, known = self.recipe, one.known
        found = search(
            self.menu.parts,
            self.menu.budgets(one.budget, one.slower),
            self.menu.indices(start),
            lambda widths, sample: self._fitness(self._like(start, widths), sample, bar),
            recipe.search,
            recipe.seed,
            [self.menu.indices(known[name]) for name in recipe.beside],
        )
        best = prefer_shared(found, [self.menu.indices(choice) for choice in taken])
        after = self._like(start, best)
        if one.loss(after) >= one.loss(start):
            after = start
        known["search"] = after
        further = [widths for widths, _ in found.best if widths != best][: FOUND - 1]
        known |= {f"search, {place}": self._like(start, widths) for place, widths in enumerate(further, 2)}
        return after

    def _like(self, start: Choice, widths: Sequence[int]) -> Choice:
        """These widths with heads and neurons that go as in the choice where the search began."""
        return replace(self.menu.choice(widths), criterion=start.criterion)

    def _fitness(self, choice: Choice, sample: float, bar: Bar) -> float:
        count = max(1, round(sample * self.recipe.calibration_size))
        value = self.measures.fitness(self.menu.specs(choice), count)
        bar.advance(f"{value:.4g}")
        return value

    # Again after learning ------------------------------------------------------------------------------------------

    def _reranked(self, choices: Sequence[Choice]) -> list[Choice]:
        """The choices after the best candidates of all wishes have learnt together, where the recipe asks for it."""
        if not self.recipe.rerank:
            return list(choices)
        fields = [one.field(choice) for one, choice in zip(self.wishes, choices, strict=True)]
        different = {self._model(c): c for field in fields for c in field.values()}
        tuned = self.measures.learnt([self.menu.specs(choice) for choice in different.values()])
        scores = dict(zip(different, tuned, strict=True))
        self.learnt = [{name: scores[self._model(c)] for name, c in field.items()} for field in fields]
        losses = [{name: score["loss"] for name, score in known.items()} for known in self.learnt]
        return self._in_turn(lambda i, taken: self.wishes[i].best(losses[i], taken))

    def _model(self, choice: Choice) -> tuple[tuple[int, ...], str]:
        """Equal for choices that make the same model."""
        return self.menu.indices(choice), choice.criterion
