"""The part `masks` of `benchmarks/choose.py`: no training step, so many of the encoder's multiplications kept.

What `compose choose` measures for a wish and takes the best of, and the masks of Kwon et al. 2022 (`mask_search.py`) on
the same calibration sample: accuracy and loss on all validation sentences.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from choose_bench import Bench, Row
from mask_search import MaskSearch

from composer.choosing.choice import CRITERION, OF_LOSS, Choice
from composer.choosing.search import search
from composer.choosing.whole import with_least, without
from composer.choosing.wishes import Wish
from composer.composing.candidates import scored


class Masks:
    """Every side of one seed, at parts of the multiplications."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.given, self.menu, self.row = bench, bench.given, bench.menu, bench.row

    def at(self, part: float) -> dict[str, Row]:
        """Every side at this part of the multiplications."""
        wish = Wish({"keep_macs": part})
        rows = {"dense": self.row(("dense",), self.score)}
        for i, name in enumerate(("Kwon: search", "+ rearrangement", "+ mask tuning")):
            if (i == 2 and self.given.kwon != "none") or self.given.kwon == "steps":
                rows[name] = self.row(("kwon", part, i), lambda i=i: self._kwon(part, i))  # type: ignore[misc]
        choices = self.programmed(wish)
        for name, choice in choices.items():
            rows[name] = self.chosen(choice)
        del choices["corrected costs"]  # which the command does not know
        ends = {name: self._emptied(wish, choice, name) for name, choice in choices.items()}
        for name in [name for name in ends if name in self.bench.costs]:
            ends[f"{name}, masks by loss"] = replace(ends[name], criterion=OF_LOSS)
            rows[f"{name}, masks by loss"] = self.chosen(ends[f"{name}, masks by loss"])
        chosen = min(ends.values(), key=lambda choice: self.chosen(choice)["loss"])
        rows["chosen"] = self.chosen(chosen)
        if n := self.given.search:
            found = self.row(("search", part, n), lambda: self._searched(wish, chosen, n))
            rows[f"chosen, search {n}"] = min(rows["chosen"], found, key=lambda row: row["loss"])
        return rows

    def _emptied(self, wish: Wish, choice: Choice, costs: str) -> Choice:
        """As the command does: without the part of which least is kept, as long as that lowers the loss."""
        while costs in self.bench.costs:
            gone = with_least(self.menu.shares(choice))
            found = self.menu.valued(without(self.bench.costs[costs], gone)).choose(wish)
            fewer = self.menu.choice(self.menu.indices(found))
            if self.chosen(fewer)["loss"] >= self.chosen(choice)["loss"]:
                break
            choice = fewer
        return choice

    def chosen(self, choice: Choice) -> Row:
        """The row of a choice."""
        masks = () if choice.criterion == CRITERION else (choice.criterion,)
        return self.row(("ours", list(choice.kept.values()), *masks), lambda: self.ours(choice))

    def _kwon(self, part: float, steps: int) -> Row:
        masks = self._their_masks(part)
        masks = self.theirs.rearranged(masks) if steps else masks
        masks = self.theirs.tuned(masks) if steps > 1 else masks
        with self.theirs.masked(masks):
            return {**self.score(), "kept": [int((m != 0).sum()) for m in masks.values()]}

    def _their_masks(self, part: float) -> Any:
        lengths = self.menu.measured.lengths
        each = {units.path: units.macs(1, lengths) for units in self.bench.units}
        return self.theirs.searched(part * self.menu.whole["macs"], each)

    def _searched(self, wish: Wish, start: Choice, evaluations: int) -> Row:
        size = self.given.calibration_size

        def fitness(chosen: tuple[int, ...], sample: float) -> float:
            count = max(1, round(sample * size))
            key = ("fitness", count, list(chosen))
            specs = self.menu.specs(self.menu.choice(chosen))
            return float(
                self.bench.journal.row(key, lambda: {"value": self.bench.candidates.divergence(specs, count)})["value"]
            )

        found = search(
            self.menu.parts, self.menu.budgets(wish), self.menu.indices(start), fitness, evaluations, self.bench.seed
        )
        return self.ours(self.menu.choice(found.best[0][0]))

    @cached_property
    def theirs(self) -> MaskSearch:
        """Kwon et al. on the same sample."""
        return MaskSearch(
            self.bench.model, self.bench.space.task, list(self.bench.calibration.batches()), self.bench.units
        )

    def score(self) -> Row:
        """Accuracy and loss of the model as it is now, on the validation split."""
        return scored(self.bench.model, self.bench.space.task, self.bench.space.examples("valid"))

    def ours(self, choice: Choice) -> Row:
        """A choice, pruned and repaired."""
        found = self.bench.candidates.loss(self.menu.specs(choice), self.bench.space.examples("valid"))
        return {**found, "kept": list(choice.kept.values()), "macs": choice.left["macs"]}

    def programmed(self, wish: Wish) -> dict[str, Choice]:
        """What the command measures for a wish and takes the best of, by name."""
        made = {"the same part everywhere": self.menu.uniform(wish)}
        for name, rises in self.bench.costs.items():
            found = self.menu.valued(rises).choose(wish)
            made[name] = self.menu.choice(self.menu.indices(found))
        return made


def show_masks(bench: Bench, parts: list[float]) -> None:
    """Print a table for each part of the multiplications."""
    masks = Masks(bench)
    for part in parts:
        columns = "accuracy, loss, kept units, processor seconds"
        print(f"\nseed {bench.seed}, {part:.0%} of the multiplications kept: {columns}")
        for name, row in masks.at(part).items():
            print(f"  {name:34} {row['accuracy']:.3f} {row['loss']:.4f} {row.get('kept', '')} {row['cpu']:.0f} s")
