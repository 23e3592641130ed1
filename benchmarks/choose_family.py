"""Whole ways from wishes to models: `compose run` against each model by itself, and translation at twice the speed.

`family`: DistilBERT on SST-2, five wishes. On one side `compose run`: chosen, pruned, learnt as one network, composed,
shrunk. On the other every wish by itself: chosen, pruned, fine-tuned whole for as many steps as the family takes in
all, shrunk. `translate`: the T5 of `../shared/models`, a family for sentences one by one and for sixteen at once.
Seconds are the processor's. Rows are kept; a step that was killed goes on, and its row lacks what it took before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from composer.errors import InputError
from composer.files.journal import Journal
from composer.files.jsonfile import read_json, write_json
from composer.recipe import load_recipe
from composer.steps.build_model import build_model
from composer.steps.choose import choose
from composer.steps.configure import generate_scheme, take_config
from composer.steps.evaluate import evaluate
from composer.steps.prune import prune
from composer.steps.run import run, with_best
from composer.steps.shrink import shrink
from composer.steps.speed import speed
from composer.steps.tune_blocks import finetune_blocks
from composer.steps.tune_model import finetune_model
from composer.timing.records import Speed
from composer.workspace import Workspace

Row = dict[str, Any]
TUNING: Row = {"batch_size": 16, "learning_rate": 1e-4, "evaluations": 3}
TOKENS = 20
"""Of a sentence of Multi30K, about: how long prompts and translations are that are timed."""


class Family:
    """Five wishes on DistilBERT, both sides."""

    def __init__(self, shared: Path, folder: Path, seed: int, wishes: list[float], steps: int, distill: float) -> None:
        self.shared, self.folder, self.seed, self.wishes, self.steps = shared, folder, seed, wishes, steps
        self.distill = distill
        self.journal = Journal(folder, "family", {"seed": seed, "steps": steps, "wishes": wishes, "distill": distill})

    def space(self, name: str, wishes: list[float]) -> Workspace:
        """A folder with some wishes."""
        given: Row = {
            "model": str(self.shared / "models/distilbert-mini-sst2"),
            "data": str(self.shared / "data/sst2"),
            "task": "classification",
            "train_size": 10000,
            "folder": str(self.folder / name),
            "seed": self.seed,
            "speedup": wishes,
            "finetune": {"steps": self.steps, "distill": self.distill, **TUNING},
            "block": {"times": 1.0, "evaluations": 3, "valid_size": 436},
        }
        return Workspace(with_best(load_recipe(given=given, file=False)))

    def together(self) -> Row:
        """`compose run` with all wishes."""
        space = self.space("together", self.wishes)
        chosen = self._timed("together", "choose", lambda: choose(space).summary["choices"])
        rest = self._timed("together", "run", lambda: run(space).summary["shrunk"])
        return {"seconds": {"choose": chosen["cpu"], "rest": rest["cpu"]}, "models": rest["done"]}

    def alone(self, i: int) -> Row:
        """One wish: chosen, pruned, fine-tuned whole, shrunk."""
        name = f"alone-{i}"
        space = self.space(name, [self.wishes[i]])

        def make() -> str:
            generate_scheme(space)
            prune(space)
            tuned = finetune_model(space, "baseline", 0).output
            small = tuned.with_name(tuned.name + "-shrunk")
            shrink(tuned, small)
            return str(small)

        chosen = self._timed(name, "choose", lambda: choose(space).summary["choices"])
        made = self._timed(name, "tune", make)
        measured = self._timed(name, "measure", lambda: self._measured(space, made["done"]))
        return {"seconds": {"choose": chosen["cpu"], "rest": made["cpu"]}, **measured["done"]}

    def _measured(self, space: Workspace, small: str) -> Row:
        found = evaluate(space, [small], renew=True).summary["results"][0]
        timed = speed([space.base.name, small], batch_sizes=(1,), lengths=(128,), memory=False)
        return {"metrics": found["metrics"], "loss": found["loss"], "faster": _faster_by_batch(timed)[1][1]}

    def _timed(self, name: str, step: str, make: Callable[[], Any]) -> Row:
        def row() -> Row:
            start = time.process_time()
            return {"done": make(), "cpu": round(time.process_time() - start, 1)}

        return self.journal.row((name, step), row)


def show_family(family: Family, which: Sequence[int]) -> None:
    """Print both sides; by themselves only these wishes are made."""
    ours = family.together()
    print(f"\nfive wishes together, {family.steps} joint steps: processor seconds {ours['seconds']}")
    for row in ours["models"]:
        faster = ", ".join(f"{one['value']:.2f}x" for one in row["faster"])
        print(f"  {row['configuration']} {row['loss']:.4f} {row['metrics']} {faster}")
    print(f"each alone, {family.steps} steps each")
    spent = []
    for i in which:
        own = family.alone(i)
        spent.append(sum(own["seconds"].values()))
        print(f"  {family.wishes[i]:g}x {own['loss']:.4f} {own['metrics']} {own['faster']:.2f}x {own['seconds']}")
    total, took = sum(spent) / len(spent) * len(family.wishes), sum(ours["seconds"].values())
    counted = "" if len(spent) == len(family.wishes) else f" (the mean of {len(spent)}, times {len(family.wishes)})"
    print(f"{total:.0f} s{counted} against {took:.0f} s: {total / took:.2f} times")


class Translation:
    """T5: choices for two batch sizes, tuned as one family, shrunk, timed and measured."""

    def __init__(
        self, shared: Path, folder: Path, seed: int, wishes: list[float], steps: int, sizes: list[int], repeat: int
    ) -> None:
        self.folder, self.wishes, self.steps, self.sizes, self.repeat = folder, wishes, steps, sizes, repeat
        self.given: Row = {
            "model": str(shared / "models/t5-mini-multi30k"),
            "data": str(shared / "data/multi30k"),
            "max_source_length": 64,
            "max_target_length": 64,
            "valid_size": 512,
            "test_size": 500,
            "seed": seed,
            "calibration_lengths": "valid",
        }

    def choices(self) -> list[Row]:
        """By batch size and wish what is chosen; what nobody can meet, in words."""
        return [self._chosen(size, wish) for size in self.sizes for wish in self.wishes]

    def _chosen(self, size: int, wish: float) -> Row:
        timed: Row = {"batch_size": size, "length": TOKENS, "new_tokens": TOKENS, "repeat": self.repeat}
        folder = self.folder / f"batch-{size}"
        own = {**self.given, "folder": str(folder), "speedup": [wish], "time": timed}
        row: Row = {"batch size": size, "wish": wish}
        conf = folder / f"conf-{wish:g}.json"
        try:
            told = choose(load_recipe(given=own, file=False), output=conf, measure=True).summary["choices"][0]
        except InputError as bad:  # nobody can meet it, or the machine is too noisy
            return {**row, "refused": str(bad)}
        shown = {name: told[name] for name in ("kept", "left", "measured", "faster", "steps")}
        return {**row, **shown, "conf": read_json(conf)["configurations"][0]}

    def family(self) -> Row:
        """All choices tuned together: quality and speed of each shrunk model, the base model first."""
        chosen = [row for row in self.choices() if "conf" in row]
        write_json(self.folder / "family.json", {"configurations": [row["conf"] for row in chosen]})
        tuning: Row = {
            "folder": str(self.folder / "family"),
            "criterion": "obs",
            "trainer": "joint",
            "finetune": {"batch_size": 32, "learning_rate": 1e-3, "evaluations": 3},
            "block": {"steps": self.steps, "evaluations": 3, "valid_size": 64},
        }
        space = Workspace(load_recipe(given={**self.given, **tuning}, file=False))
        start = time.process_time()
        take_config(space, self.folder / "family.json")
        generate_scheme(space)
        prune(space)
        finetune_blocks(space)
        names = [space.base.name]
        for i in range(len(chosen)):
            built = Path(build_model(space, i).output)
            shrink(built, small := built.with_name(built.name + "-shrunk"))
            names.append(str(small))
        took = time.process_time() - start
        results = evaluate(space, names, renew=True).summary["results"]
        how: Row = {"batch_sizes": tuple(self.sizes), "lengths": (TOKENS,), "new_tokens": TOKENS, "memory": False}
        faster = _faster_by_batch(speed(names, **how))
        rows = [{**found, "faster": own} for found, own in zip(results, faster, strict=True)]
        return {"rows": rows, "chosen": [None, *chosen], "cpu": took}


def show_translation(translation: Translation) -> None:
    """Print what is chosen and what the family is worth."""
    print("\nT5, greedy translation: chosen")
    for row in translation.choices():
        told = row.get("refused") or f"{row['measured']} {row['faster']} {list(row['kept'].values())}"
        print(f"  batch {row['batch size']}, {row['wish']:g}x: {told}")
    made = translation.family()
    print(f"after {translation.steps} joint steps for all, {made['cpu']:.0f} s of processor time")
    for row, own in zip(made["rows"], made["chosen"], strict=True):
        which = f"batch {own['batch size']}, {own['wish']:g}x" if own else "dense"
        print(f"  {which:16} {row['metrics']} loss {row['loss']:.4f} {row['faster']}")


def _faster_by_batch(timed: Speed) -> list[dict[int, float]]:
    """Of each entry, by batch size: how many times as fast all is, the prompt and the new tokens after it."""
    seconds: list[dict[int, float]] = [{} for _ in timed.entries]
    for row in timed.rows:
        times = timed.new_tokens if row.part == "new tokens" else 1
        own = seconds[row.entry]
        own[row.batch_size] = own.get(row.batch_size, 0.0) + times * timed.seconds(row).median
    return [{size: round(seconds[0][size] / spent, 3) for size, spent in own.items()} for own in seconds]
