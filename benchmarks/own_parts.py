"""Eight models learnt together, with and without biases and norms, or low-rank updates, of their own.

    python benchmarks/own_parts.py [t5|distilbert] [--steps 120 450] [--ways none biases-norms alone] [-o .bench/own-t5]

Configurations, equal `obs` masks and closed forms as in benchmarks/joint.py. `none`: all weights are shared.
`biases-norms`, `lora`: each configuration owns such a part, everything else is shared and learns (`--own`). `alone`,
`lora-alone`: the part alone learns, what is shared stays as it is (`--train biases-norms` too). Every phase has the
same seed, batches, draws and number of steps. Losses are on the validation examples of benchmarks/joint.py: `kept` of
the models as they come from the library (a phase keeps its start where the mean never falls below it), `end` after the
last step, on the examples that the phase looks at. Kept as they come; a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from common import losses
from joint import MODELS, SeededRuns

from composer.files.environment import machine, versions
from composer.files.jsonfile import read_json, write_json
from composer.files.stats import joint_rows
from composer.library.store import Library
from composer.recipe import PEAK_RATES
from composer.scheme.graph import SHARED
from composer.workspace import Workspace

N = 8
STEPS = {"t5": {120: 3e-4, 450: 1e-3}, "distilbert": {300: 1e-4}}
"""Joint steps -> peak rate of what is shared: what was best without own parts (docs/decisions/joint.md)."""
WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "biases-norms": {"own": "biases-norms"},
    "lora": {"own": "lora"},
    "alone": {"own": "biases-norms", "train": "biases-norms"},
    "lora-alone": {"own": "lora", "train": "biases-norms"},
}


class OwnRuns(SeededRuns):
    """One seed."""

    def _composed(self, space: Workspace) -> dict[str, Any]:
        return {"loss": losses(space, space.finetuned)}

    def phase(self, way: str, count: int, rate: float, own_rate: float | None) -> dict[str, Any]:
        """A joint phase of ``count`` steps, and what came of it."""
        batch, said = self.model["batch"], {**WAYS[way], **({"own_rate": own_rate} if own_rate else {})}
        name = f"{way}-{count}-{rate:g}" + (f"-{own_rate:g}" if own_rate else "")
        block = {"steps": count, "batch_size": batch, "learning_rate": rate, "evaluations": 3}
        block["valid_size"] = self.model["joint_valid"]
        whole = {"steps": count, "batch_size": batch, "learning_rate": rate, "evaluations": 3, **said}
        space = self.space("own", N, criterion="obs", trainer="joint", block=block, finetune=whole)
        made = self._blocks(name, space, N, count, rate)
        held = self.folder / f"{name}-curves.json"
        if not held.is_file():
            library, roots = Library(space.finetuned), space.scheme().roots
            addresses = space.addresses(library, space.scheme())
            stats = library.stats(addresses[SHARED])
            own = sum(library.path(addresses[root]).stat().st_size for root in roots if root in addresses)
            sizes = {"own_bytes": own, "shared_bytes": library.path(addresses[SHARED]).stat().st_size}
            write_json(held, {"rows": joint_rows(stats, roots), "mean": stats["mean"], **sizes})
        return {**made, **read_json(held)}


def show(way: str, count: int, own_rate: float | None, made: dict[str, Any]) -> None:
    """A line for the kept models, one for the last step."""
    last = [row["valid_loss"] for row in made["rows"] if row["step"] == made["mean"][-1]["step"]]
    seconds = made["joint_seconds"] * made["processor_share"]
    what = f"{count}  {way}{f' {own_rate:g}' if own_rate else ''}"
    for when, each in (("kept", made["loss"]), ("end", last)):
        text = " ".join(f"{loss:.3f}" for loss in each)
        print(f"{what}  {when}  mean {sum(each) / len(each):.4f}  {text}", flush=True)
    size = f"{made['own_bytes'] / 2**20:.2f} MiB of {N} beside {made['shared_bytes'] / 2**20:.1f}"
    print(f"{what}  {seconds:.0f} processor seconds ({seconds / count:.2f} a step), {size}", flush=True)


def main() -> int:
    """Make the phases that are not there, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=MODELS, default="t5")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, help="folder [.bench/own-TASK]")
    parser.add_argument("--steps", type=int, nargs="+", help="of a joint phase [the task's]")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["none", "biases-norms", "alone"])
    parser.add_argument("--rate", type=float, help="peak rate of what is shared [by length]")
    parser.add_argument("--own-rates", type=float, nargs="+", help=f"peak rates of own parts [{PEAK_RATES}]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    given = parser.parse_args()
    given.output = given.output or Path(f".bench/own-{given.task}")
    import torch  # noqa: F401  (machine() tells its number of threads)

    print("machine:", ", ".join(f"{k} {v}" for k, v in machine().items()))
    print("versions:", ", ".join(f"{k} {v}" for k, v in versions().items()))
    rates = STEPS[given.task]
    for seed in given.seeds:
        runs = OwnRuns(given, seed)
        for count in given.steps or rates:
            for way in given.ways:
                for own_rate in given.own_rates or [None] if way != "none" else [None]:
                    rate = given.rate or rates.get(count, min(rates.values()))
                    show(way, count, own_rate, runs.phase(way, count, rate, own_rate))
    print("repeat with:", " ".join(["python", "benchmarks/own_parts.py", *sys.argv[1:]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
