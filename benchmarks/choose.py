"""Choices of `compose choose` against the same part of every layer and against Kwon et al. 2022, in one run.

    python benchmarks/choose.py [--parts masks rank …] [--keep 0.7 0.6 0.5 0.4 0.3] [--search 0] [-o .bench/choose]

The models of `../shared/models`. DistilBERT on SST-2, no training step: `masks`: accuracy and loss on all validation
sentences with so many of the encoder's multiplications kept. `time`: the table of seconds against the clock, 20 random
compositions. `rank`: see `choose_rank.py`. `speed`: see `choose_speed.py`; `family` and `translate` (T5): see
`choose_family.py`. Every row is kept as it comes; a killed run goes on where it was. All sides look at the same
calibration sample.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from choose_family import Family, Translation, show_family, show_translation
from choose_rank import Ranks
from choose_speed import SpeedBench, show_speed
from common import timed_row
from corrected_costs import corrected, measured_at
from mask_search import MaskSearch

from composer.choosing.choice import CRITERION, Choice, Measured, Menu
from composer.choosing.search import search
from composer.choosing.whole import with_least, without
from composer.choosing.widths import widths
from composer.choosing.wishes import Wish
from composer.composing.candidates import Candidates, scored
from composer.files.environment import machine, versions
from composer.files.journal import Journal
from composer.recipe import load_recipe
from composer.shrinking.in_memory import SmallModels
from composer.shrinking.units import units_of
from composer.timing.parts import PartTimer, Setting, steadied
from composer.timing.statistics import Spread
from composer.workspace import Workspace

Row = dict[str, Any]
FAR = 128
"""Examples on which answers are compared with the base model's."""


class Bench:
    """One seed: the model, what was gathered of it, and the rows that are there."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        shared = given.shared
        fields = {"model": str(shared / "models/distilbert-mini-sst2"), "data": str(shared / "data/sst2")}
        sample = {"calibration_size": given.calibration_size, "calibration_lengths": "valid", "seed": seed}
        self.space = Workspace(load_recipe(given={**fields, **sample, "folder": str(given.output)}, file=False))
        self.units = list(units_of(self.space.base.layout))
        self.seed, self.given = seed, given
        self.journal = Journal(given.output, f"seed-{seed}", {"base": self.space.base.fingerprint, **sample})

    def row(self, key: tuple[Any, ...], make: Callable[[], Row]) -> Row:
        """A row, with its processor seconds; made where it is not there."""
        return timed_row(self.journal, key, make)

    @cached_property
    def model(self) -> Any:
        """The base model."""
        return self.space.fresh_model()

    @cached_property
    def calibration(self) -> Any:
        """It on the calibration sample."""
        from composer.progress import SILENT

        return self.space.calibrated(self.model, self.space.base.layout, progress=SILENT)

    @cached_property
    def candidates(self) -> Candidates:
        """Configurations of it, pruned and repaired."""
        how: dict[str, Any] = {"damping": 0.01, "seed": self.seed, "small": SmallModels(self.model, self.space.base)}
        return Candidates(self.model, self.space.task, self.calibration, CRITERION, **how)

    @cached_property
    def menu(self) -> Menu:
        """The table of rises."""
        from composer.calibration.rises import rises_by_width

        def make() -> Row:
            rises, lengths = rises_by_width(self.model, self.space.task, self.calibration, self.units, damping=0.01)
            return {"rises": rises, "lengths": lengths}

        found = {name: value for name, value in self.row(("table",), make).items() if name != "cpu"}
        return Menu(self.units, Measured(**found, parameters=self.space.base.parameters, stored=1, written=1))

    @cached_property
    def fisher(self) -> dict[str, list[float]]:
        """Rises by the Fisher information of masks."""
        from composer.calibration.mask_fisher import fisher_by_width

        def make() -> Row:
            return {"rises": fisher_by_width(self.model, self.space.task, self.calibration, self.units)}

        return dict(self.row(("fisher",), make)["rises"])

    @cached_property
    def theirs(self) -> MaskSearch:
        """Kwon et al. on the same sample."""
        return MaskSearch(self.model, self.space.task, list(self.calibration.batches()), self.units)

    def score(self) -> Row:
        """Accuracy and loss of the model as it is now, on the validation split."""
        return scored(self.model, self.space.task, self.space.examples("valid"))

    def ours(self, choice: Choice) -> Row:
        """A choice, pruned and repaired."""
        found = self.candidates.loss(self.menu.specs(choice), self.space.examples("valid"))
        return {**found, "kept": list(choice.kept.values()), "macs": choice.left["macs"]}

    def programmed(self, wish: Wish) -> dict[str, Choice]:
        """What the command measures for a wish and takes the best of, by name."""
        made = {"the same part everywhere": self.menu.uniform(wish)}
        for name, rises in self.costs.items():
            found = self.menu.valued(rises).choose(wish)
            made[name] = self.menu.choice(self.menu.indices(found))
        return made

    @cached_property
    def costs(self) -> dict[str, Mapping[str, Sequence[float]]]:
        """Rises of the loss by width, of all kinds."""
        rises = self.menu.rises
        right = {u.path: self._corrected(m, rises[u.path]) for m, u in enumerate(self.units)}
        return {"brain-surgeon costs": rises, "Fisher costs": self.fisher, "corrected costs": right}

    def _corrected(self, m: int, rises: Sequence[float]) -> list[float]:
        """The rises of one part, by what some of its widths were measured to cost by themselves."""
        found = {}
        for k in measured_at(len(rises)):
            chosen = [0] * len(self.units)
            chosen[m] = k
            found[k] = self.far(chosen)
        return corrected(rises, found)

    def far(self, chosen: Sequence[int]) -> float:
        """How far answers are from the base model's."""

        def make() -> Row:
            specs = self.menu.specs(self.menu.choice(chosen))
            return {"divergence": self.candidates.divergence(specs, FAR)}

        return float(self.row(("far", list(chosen)), make)["divergence"])

    def masks(self, part: float) -> dict[str, Row]:
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
        ends = [self._emptied(wish, choice, name) for name, choice in choices.items()]
        chosen = min(ends, key=lambda choice: self.chosen(choice)["loss"])
        rows["chosen"] = self.chosen(chosen)
        if n := self.given.search:
            found = self.row(("search", part, n), lambda: self._searched(wish, chosen, n))
            rows[f"chosen, search {n}"] = min(rows["chosen"], found, key=lambda row: row["loss"])
        return rows

    def _emptied(self, wish: Wish, choice: Choice, costs: str) -> Choice:
        """As the command does: without the part of which least is kept, as long as that lowers the loss."""
        while costs in self.costs:
            gone = with_least(self.menu.shares(choice))
            found = self.menu.valued(without(self.costs[costs], gone)).choose(wish)
            fewer = self.menu.choice(self.menu.indices(found))
            if self.chosen(fewer)["loss"] >= self.chosen(choice)["loss"]:
                break
            choice = fewer
        return choice

    def chosen(self, choice: Choice) -> Row:
        """The row of a choice."""
        return self.row(("ours", list(choice.kept.values())), lambda: self.ours(choice))

    def _kwon(self, part: float, steps: int) -> Row:
        masks = self._their_masks(part)
        masks = self.theirs.rearranged(masks) if steps else masks
        masks = self.theirs.tuned(masks) if steps > 1 else masks
        with self.theirs.masked(masks):
            return {**self.score(), "kept": [int((m != 0).sum()) for m in masks.values()]}

    def _their_masks(self, part: float) -> Any:
        lengths = self.menu.measured.lengths
        each = {units.path: units.macs(1, lengths) for units in self.units}
        return self.theirs.searched(part * self.menu.whole["macs"], each)

    def _searched(self, wish: Wish, start: Choice, evaluations: int) -> Row:
        size = self.given.calibration_size

        def fitness(chosen: tuple[int, ...], sample: float) -> float:
            count = max(1, round(sample * size))
            key = ("fitness", count, list(chosen))
            specs = self.menu.specs(self.menu.choice(chosen))
            return float(self.journal.row(key, lambda: {"value": self.candidates.divergence(specs, count)})["value"])

        found = search(
            self.menu.parts, self.menu.budgets(wish), self.menu.indices(start), fitness, evaluations, self.seed
        )
        return self.ours(self.menu.choice(found.best[0][0]))

    def compositions(self, count: int) -> list[Choice]:
        """Random widths, each part drawn by itself."""
        draw = random.Random(self.seed)
        return [self.menu.choice([draw.randrange(len(widths(u))) for u in self.units]) for _ in range(count)]

    def time(self) -> Row:
        """Predicted against measured ratios to the base model."""
        setting = Setting(self.given.batch_size, self.given.length, repeat=self.given.repeat)

        def make() -> Row:
            timer = PartTimer(self.space.base, self.units, setting)
            start = time.perf_counter()
            table, took = timer.table(), time.perf_counter()
            whole = {u.path: u.count for u in self.units}
            some = [dict(one.kept) for one in self.compositions(20)]
            spent = [Spread.of(own).median for own in steadied(timer.measure([whole, *some]))]
            sums = [table.total(kept, self.units) for kept in (whole, *some)]
            errors = [abs(s / sums[0] * spent[0] / t - 1) for s, t in zip(sums[1:], spent[1:], strict=True)]
            told = {"table_seconds": took - start, "spread": table.spread, "fit": table.fit}
            return {"median": median(errors), "worst": max(errors), "errors": errors, **told}

        return self.row(("time", self.given.batch_size, self.given.length, self.given.repeat), make)


PARTS = ["masks", "time", "rank", "speed", "family", "translate"]


def main() -> int:
    """Make the rows that are not there, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", nargs="+", type=float, default=[0.7, 0.6, 0.5, 0.4, 0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--kwon", choices=["steps", "whole", "none"], default="steps", help="theirs: each step, all")
    parser.add_argument("--search", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of joint tuning [speed: none; family: 120; translate: 900]")
    parser.add_argument("--distill", type=float, default=0.0, help="speed, family: weight of the base model's answers")
    parser.add_argument("--speeds", nargs="+", type=float, help="[speed: 1.5 2 3; family: five; translate: 1.5 2]")
    parser.add_argument("--alone", nargs="+", type=int, help="family: wishes that are made by themselves too [all]")
    parser.add_argument("--calibration-size", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/choose"))
    given = parser.parse_args()
    print("machine:", ", ".join(f"{k} {v}" for k, v in machine().items()))
    print("versions:", ", ".join(f"{k} {v}" for k, v in versions().items()))
    for seed in given.seeds:
        tables(given, seed)
        ways(given, seed)
    print(f"\nrepeat with: {shlex.join(['python', 'benchmarks/choose.py', *sys.argv[1:]])}")
    return 0


def tables(given: argparse.Namespace, seed: int) -> None:
    """Parts that look at one configuration after the other."""
    bench = Bench(given, seed)
    for part in given.keep if "masks" in given.parts else ():
        print(f"\nseed {seed}, {part:.0%} of the multiplications kept: accuracy, loss, kept units, processor seconds")
        for name, row in bench.masks(part).items():
            print(f"  {name:26} {row['accuracy']:.3f} {row['loss']:.4f} {row.get('kept', '')} {row['cpu']:.0f} s")
    if "time" in given.parts:
        print(f"\nseed {seed}, seconds of 20 compositions: {bench.time()}")
    ranks = Ranks(bench)
    for spread in ("half", "budgets") if "rank" in given.parts else ():
        print(f"\nseed {seed}, predicted and measured, 30 compositions ({spread}): {ranks.rank(spread)}")


def ways(given: argparse.Namespace, seed: int) -> None:
    """Parts that go the whole way."""
    shared, own = given.shared, given.output / f"seed-{seed}"
    if "speed" in given.parts:
        bench = SpeedBench(shared, own / "speed", seed, given.search, given.speeds or [1.5, 2.0, 3.0], given.distill)
        show_speed(bench, given.steps or 0)
    if "family" in given.parts:
        speeds = given.speeds or [1.5, 1.75, 2.0, 2.5, 3.0]
        family = Family(shared, own / "family", seed, speeds, given.steps or 120, given.distill)
        show_family(family, range(len(speeds)) if given.alone is None else given.alone)
    if "translate" in given.parts:
        folder, speeds = own / "translate", given.speeds or [1.5, 2.0]
        show_translation(Translation(shared, folder, seed, speeds, given.steps or 900))


if __name__ == "__main__":
    sys.exit(main())
