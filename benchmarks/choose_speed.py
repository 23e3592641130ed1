"""Choices for wished speeds beside the same part of every layer at equal measured time, before and after joint tuning.

The uniform choice of a wish is seldom as fast as the chosen one (its widths are coarse), so it is measured at many
sizes, all timed in turn with the choices, and its loss at the choice's own time is interpolated. What is closed of the
gap is ``1 − (loss − dense) / (uniform loss − dense)``. Joint tuning: the choices and, for each, the largest uniform
model that is no faster, all as one network; every side gets the same steps.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import composed, plan

from composer.choosing.choice import Choice, Menu
from composer.choosing.widths import Level
from composer.choosing.wishes import Wish
from composer.composing.candidates import scored
from composer.files.journal import Journal
from composer.progress import SILENT
from composer.recipe import load_recipe
from composer.steps.choice_measures import Measures
from composer.steps.choose import choose
from composer.steps.part_times import part_times
from composer.steps.prune import prune
from composer.steps.tune_blocks import finetune_blocks
from composer.workspace import Workspace

SIZES = [0.85, 0.78, 0.7, 0.64, 0.58, 0.52, 0.47, 0.42, 0.37, 0.33, 0.29, 0.25, 0.21, 0.17, 0.13]
"""Parts of the multiplications at which uniform models are measured."""

Row = dict[str, Any]


class SpeedBench:
    """One seed: what the command chooses for some speeds, and uniform models around them."""

    def __init__(self, shared: Path, folder: Path, seed: int, search: int, wishes: list[float], distill: float) -> None:
        fields = {"model": str(shared / "models/distilbert-mini-sst2"), "data": str(shared / "data/sst2")}
        tuning: Row = {"finetune": {"batch_size": 16, "learning_rate": 1e-4, "evaluations": 3, "distill": distill}}
        self.given = {**fields, **tuning, "seed": seed, "folder": str(folder)}
        self.wishes, self.search, self.folder, self.distill = wishes, search, folder, distill
        self.space = Workspace(load_recipe(given={**self.given, "speedup": wishes, "search": search}, file=False))
        self.measures = Measures(self.space, folder, force=False, progress=SILENT)
        self.menu = Menu(self.measures.units, self.measures.parts(), part_times(self.space, self.measures.units))
        self.journal = Journal(folder, "speed", self.measures.inputs)

    def choices(self) -> list[Choice]:
        """What the command chooses."""

        def make() -> Row:
            start = time.process_time()
            told = choose(self.space)
            return {"kept": [row["kept"] for row in told.summary["choices"]], "cpu": time.process_time() - start}

        kept = self.journal.row(("chosen", self.wishes, self.search), make)["kept"]
        return [self._choice(own) for own in kept]

    def _choice(self, kept: dict[str, int]) -> Choice:
        levels = {path: Level(count) for path, count in kept.items()}
        return self.menu.choice(self.menu.indices(Choice(levels, 0.0, {})))

    def untrained(self) -> list[Row]:
        """For each wish the choice's measured ratio and loss, and the uniform loss at that ratio."""
        chosen, even = self.choices(), [self.menu.uniform(Wish({"keep_macs": part})) for part in SIZES]
        faster = [one["value"] for one in self.measures.faster([*chosen, *even])]
        curve = sorted(zip(faster[len(chosen) :], even, strict=True), key=lambda pair: pair[0])
        losses = [self._loss(one) for _, one in curve]
        dense = self.measures.loss({})["loss"]
        rows = []
        for wish, choice, ratio in zip(self.wishes, chosen, faster, strict=False):
            own, other = self._loss(choice), float(np.interp(ratio, [r for r, _ in curve], losses))
            near = max((i for i, (r, _) in enumerate(curve) if r <= ratio), default=0)
            row = {"wish": wish, "ratio": ratio, "loss": own, "uniform at equal time": other, "dense": dense}
            kept = {"kept": dict(choice.kept), "near": dict(curve[near][1].kept), "near ratio": curve[near][0]}
            rows.append({**row, "closed": 1 - (own - dense) / (other - dense), **kept})
        return rows

    def tuned(self, rows: list[Row], steps: int) -> list[Row]:
        """The same after one joint phase for all of them and their uniform neighbours, which are somewhat slower."""
        return list(
            self.journal.row(("tuned", steps, self.distill, rows), lambda: {"rows": self._tuned(rows, steps)})["rows"]
        )

    def _tuned(self, rows: list[Row], steps: int) -> list[Row]:
        block = {"steps": steps, "evaluations": 3, "valid_size": 436}
        folder = self.folder / f"tuned-{steps}-{self.distill:g}"
        how = {"folder": str(folder), "block": block, "criterion": "obs", "trainer": "joint", "train_size": 10000}
        how["calibration_lengths"] = "valid"  # as `compose run` has it where it chooses
        with Workspace(load_recipe(given={**self.given, **how}, file=False)) as space:
            pairs = [row[name] for row in rows for name in ("kept", "near")]
            whole = {units.path: units.count for units in self.measures.units}
            choices = [self._choice({**whole, **kept}) for kept in pairs]
            different = [self.menu.specs(one) for one in choices]
            plan(space, different, force=True)
            prune(space)
            finetune_blocks(space)
            valid = space.examples("valid")
            own = [scored(model, space.task, valid) for model in composed(space, space.finetuned)]
        made = []
        for i, row in enumerate(rows):
            pair = {"wish": row["wish"], "chosen": own[2 * i], "uniform": own[2 * i + 1]}
            made.append({**pair, "ratios": [row["ratio"], row["near ratio"]], "dense": row["dense"]})
        return made

    def _loss(self, choice: Choice) -> float:
        return self.measures.loss(self.menu.specs(choice))["loss"]


def show_speed(bench: SpeedBench, steps: int) -> None:
    """Print both tables; no steps: the first."""
    print("\nwish, measured, loss: chosen, uniform at equal time (interpolated), dense; closed of the gap")
    rows = bench.untrained()
    for row in rows:
        losses = f"{row['loss']:.4f} {row['uniform at equal time']:.4f} {row['dense']:.4f}"
        print(f"  {row['wish']:g}x {row['ratio']:.2f}x {losses} {row['closed']:.0%} {list(row['kept'].values())}")
    if steps:
        print(f"\nafter {steps} joint steps for all of them: loss and accuracy, chosen and uniform (a little slower)")
        for row in bench.tuned(rows, steps):
            both = " ".join(f"{row[s]['loss']:.4f} {row[s]['accuracy']:.3f}" for s in ("chosen", "uniform"))
            print(f"  {row['wish']:g}x {both}; ratios {row['ratios'][0]:.2f} {row['ratios'][1]:.2f}")
