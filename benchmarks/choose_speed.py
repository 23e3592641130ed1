"""Choices for wished speeds beside the same part of every layer at equal measured time, before and after joint tuning.

The uniform choice of a wish is seldom as fast as the chosen one (its widths are coarse), so it is measured at many
sizes, all timed in turn with the choices, and its loss at the choice's own time is interpolated. What is closed of the
gap is ``1 − (loss − dense) / (uniform loss − dense)``. Joint tuning: the choices and, for each, the uniform models just
slower and just faster than it, all as one network; every side gets the same steps, and the uniform loss after them is
interpolated too.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import composed, plan

from composer.choosing.choice import Choice
from composer.choosing.menu import Menu
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
            row = {"wish": wish, "ratio": ratio, "loss": own, "uniform at equal time": other, "dense": dense}
            near = [{"ratio": r, "kept": dict(one.kept)} for r, one in _around(curve, ratio)]
            kept = {"kept": dict(choice.kept), "near": near}
            rows.append({**row, "closed": _closed(own, other, dense), **kept})
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
            models = [kept for row in rows for kept in (row["kept"], *(one["kept"] for one in row["near"]))]
            different = {tuple(kept.items()): self._choice(kept) for kept in models}  # wishes may share a neighbour
            plan(space, [self.menu.specs(one) for one in different.values()], force=True)
            prune(space)
            finetune_blocks(space)
            valid = space.examples("valid")
            found = [scored(model, space.task, valid) for model in composed(space, space.finetuned)]
        of = dict(zip(different, found, strict=True))
        scores = iter([of[tuple(kept.items())] for kept in models])
        return [self._after(row, next(scores), [next(scores) for _ in row["near"]]) for row in rows]

    @staticmethod
    def _after(row: Row, chosen: Row, uniform: list[Row]) -> Row:
        """One wish after tuning; of the uniform side what it has at the choice's time."""
        ratios = [one["ratio"] for one in row["near"]]
        equal = {name: float(np.interp(row["ratio"], ratios, [one[name] for one in uniform])) for name in chosen}
        closed = _closed(chosen["loss"], equal["loss"], row["dense"])
        kept = {name: row[name] for name in ("wish", "ratio")} | {"ratios": ratios, "neighbours": uniform}
        return {**kept, "chosen": chosen, "uniform": equal, "closed": closed}

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
        print(f"\nafter {steps} joint steps for all of them: loss and accuracy, chosen and uniform at equal time")
        for row in bench.tuned(rows, steps):
            both = " ".join(f"{row[s]['loss']:.4f} {row[s]['accuracy']:.3f}" for s in ("chosen", "uniform"))
            between = ", ".join(f"{ratio:.2f}x" for ratio in row["ratios"])
            print(f"  {row['wish']:g}x {row['ratio']:.2f}x {both} {row['closed']:.0%}; uniform ones between {between}")


def _around(curve: list[tuple[float, Choice]], ratio: float) -> list[tuple[float, Choice]]:
    """The models of a curve, sorted by speed, just slower and just faster than this; at its end one of them."""
    after = next((i for i, (r, _) in enumerate(curve) if r > ratio), len(curve))
    return curve[max(0, after - 1) : after + 1]


def _closed(loss: float, uniform: float, dense: float) -> float:
    """Share of the uniform model's gap to the dense loss."""
    return 1 - (loss - dense) / (uniform - dense)
