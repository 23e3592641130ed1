"""At length: eight models learnt once, against each one alone, after 120 steps up to epochs.

    python benchmarks/length.py [t5|distilbert] [--lengths 120 300 900] [--shares 0.5 1 1.5] [-o .bench/length-t5]

Questions A (equal `obs` masks) and B (classic l1) as in benchmarks/joint.py, whose code it shares. The work is cut
into parts, each one run of one (side, length, configuration, seed, rate), kept as JSON when it is done; `--sides`,
`--lengths`, `--rates` and `--seeds` say which of them to run now, a killed run goes on where it was, and the tables are
made from all parts that are there. Every joint phase has a schedule of its own down to a rate of 0: none is the
beginning of a longer one, so shares of a baseline's steps are compared fairly. Of the baselines the mildest, the middle
and the strongest configuration are run (`--baselines all`: every one). On both sides the rate is the best of those
tried at that length, on the middle configuration for the baselines, by the mean loss of all for the joint phase; what
the others took is counted as the search. Seconds are the processor's: steps, masks, blocks; no validation, no loading.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import length_tables as tables
from joint import MODELS, SeededRuns

from composer.files.environment import machine, versions
from composer.files.jsonfile import read_json, write_json
from composer.steps.prune import prune
from composer.steps.tune_model import finetune_model

LENGTHS = {"t5": [120, 300, 900, 2700], "distilbert": [60, 300, 600]}
"""Steps of each model alone; the third is an epoch."""
TESTED = 500
"""Sentences that a translation's metric is measured on."""


@dataclass(frozen=True)
class Part:
    """One run. ``side`` is A or B (one model alone, ``configuration`` says which) or joint (all of them)."""

    side: str
    steps: int
    rate: float
    seed: int
    configuration: int | None = None
    distill: float = 0.0

    @property
    def name(self) -> str:
        """Of its file."""
        which = "" if self.configuration is None else f"-{self.configuration}"
        taught = f"-distill-{self.distill:g}" if self.distill else ""
        return f"{self.side}-{self.steps}{which}-{self.rate:g}{taught}-seed-{self.seed}"


class LengthRuns(SeededRuns):
    """One seed, at any length."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        super().__init__(given, seed)
        # joint.py's 100 sentences are too few to tell BLEU apart (an error of about 2 points).
        if "test_size" in self.model["recipe"]:
            self.model = {**self.model, "recipe": {**self.model["recipe"], "test_size": TESTED}}

    def run(self, part: Part, n: int) -> dict[str, Any]:
        """The figures of a part, for a scheme of ``n`` configurations."""
        self.distill = part.distill
        if part.configuration is None:
            made = self.joint(n, part.steps, part.rate, folder=f"joint-{n}")
            return {name: value for name, value in made.items() if name != "space"}
        space = self.alone(part.side, n, part.steps)
        pruned = prune(space).summary["seconds"]
        folder = space.folder / "models" / part.name
        began, processor = time.perf_counter(), time.process_time()
        done = finetune_model(
            space, "baseline", part.configuration, learning_rate=part.rate, output=folder, force=folder.exists()
        ).summary
        share = (time.process_time() - processor) / (time.perf_counter() - began)
        row = {"start": done["first_loss"], "loss": done["final_loss"], "seconds": done["seconds"]}
        row |= {"processor_share": share, "prune_seconds": pruned, "metric": self.metric(space, folder)}
        shutil.rmtree(folder)  # one model for each part is too many to keep
        return row

    def chosen(self, n: int, which: str) -> list[int]:
        """Which configurations have baselines, by what they remove: mildest, middle, strongest; or all."""
        order = sorted(range(n), key=self.sparsity(n).__getitem__)
        return order if which == "all" else [order[0], order[n // 2], order[-1]]


def parts(given: argparse.Namespace, seed: int, chosen: list[int]) -> Iterator[Part]:
    """What was asked for, the shortest first; the middle configuration before the others, as it tells the rate."""
    for length in sorted(given.lengths):
        if "joint" in given.sides:
            for count in sorted({round(share * length) for share in given.shares}):
                for rate in given.joint_rates or given.rates:
                    yield Part("joint", count, rate, seed, distill=given.distill)
        for side in (side for side in ("A", "B") if side in given.sides):
            middle = chosen[len(chosen) // 2]
            for rate in given.rates:
                yield Part(side, length, rate, seed, middle, given.distill)
            for i in (i for i in chosen if i != middle):
                yield Part(side, length, best_rate(given, side, length, seed, middle), seed, i, given.distill)


def best_rate(given: argparse.Namespace, side: str, length: int, seed: int, middle: int) -> float:
    """Of all rates with which the middle configuration's baseline has been run at this length."""
    tried = [row for row in stored(given.output) if (row["side"], row["steps"], row["seed"]) == (side, length, seed)]
    tried = [row for row in tried if row["configuration"] == middle and row.get("distill", 0.0) == given.distill]
    return float(min(tried, key=lambda row: row["loss"])["rate"])


def stored(folder: Path) -> list[dict[str, Any]]:
    """Every part that is done, what it is and what it measured in one."""
    return [dict(read_json(path)) for path in sorted((folder / "parts").glob("*.json"))]


def run(given: argparse.Namespace) -> None:
    """Every part that was asked for and is not done yet."""
    for seed in given.seeds:
        runs = LengthRuns(given, seed)
        chosen = runs.chosen(given.configurations, given.baselines)
        about = {"task": given.task, "configurations": given.configurations, "machine": machine()}
        about |= {"versions": versions(), "sparsity": runs.sparsity(given.configurations), "baselines": chosen}
        write_json(given.output / "about.json", about)
        for part in parts(given, seed, chosen):
            held = given.output / "parts" / f"{part.name}.json"
            if held.is_file():
                continue
            print(f"  {part.name} …", flush=True)
            row = {**vars(part), "n": given.configurations, **runs.run(part, given.configurations)}
            row["tested"] = runs.model["recipe"].get("test_size")
            write_json(held, row)
            print(f"  {part.name}: {row['loss']}", flush=True)


def main() -> int:
    """Run what is asked for and print the tables of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=MODELS, default="t5")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, help="folder [.bench/length-TASK]")
    parser.add_argument("--configurations", type=int, default=8)
    parser.add_argument("--baselines", choices=("three", "all"), default="three")
    parser.add_argument("--lengths", type=int, nargs="+", help="steps of each model alone [all of the task's]")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 1.0, 1.5], help="of them: joint steps in all")
    parser.add_argument("--sides", nargs="+", choices=("joint", "A", "B"), default=["joint", "A", "B"])
    parser.add_argument("--rates", type=float, nargs="+", help="peak rates to try [the task's]")
    parser.add_argument("--joint-rates", type=float, nargs="+", help="of the joint phase [the same]")
    parser.add_argument("--distill", type=float, default=0.0, help="weight of the base model's answers, on both sides")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--tables", action="store_true", help="only print the tables again")
    given = parser.parse_args()
    given.output = given.output or Path(f".bench/length-{given.task}")
    given.lengths, given.steps = given.lengths or LENGTHS[given.task], 1
    given.rates = given.rates or MODELS[given.task]["rates"]
    import torch  # noqa: F401  (machine() tells its number of threads)

    (given.output / "parts").mkdir(parents=True, exist_ok=True)
    if not given.tables:
        run(given)
    tables.show(given.output, stored(given.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
