"""Peak memory of the joint phase against plain fine-tuning of one model.

    OMP_NUM_THREADS=1 python benchmarks/joint_memory.py [t5|distilbert] [--configurations 8] [-o .bench/joint-memory]

Each side takes three steps in a process of its own, beside one that only loads model and data. Writes memory.json.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from joint import MODELS, SeededRuns

from composer.files.jsonfile import read_json, write_json
from composer.steps.prune import prune
from composer.steps.settings import model_settings
from composer.steps.starting_model import starting_model
from composer.steps.tune_blocks import finetune_blocks
from composer.steps.tune_model import trial


def memory(given: argparse.Namespace) -> None:
    """Peak memory of three steps of each side, each in a process of its own, beside one that only loads."""
    found: dict[str, float] = {}
    for side in ("prepare", "loaded", "alone", "joint"):
        words = [sys.executable, __file__, given.task, "--shared", str(given.shared), "--child", side]
        words += ["-o", str(given.output), "--configurations", str(given.configurations)]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        found[side] = float(said.splitlines()[-1])
    write_json(given.output / "memory.json", {**found, "unit": "MiB", "configurations": given.configurations})
    show(given.output)


def child(given: argparse.Namespace) -> None:
    """One side of :func:`memory`, on blocks that ``prepare`` has made; prints its peak in MiB."""
    n, bench = given.configurations, SeededRuns(given, 1)
    block = {"steps": 3, "batch_size": bench.model["batch"], "evaluations": 1, "valid_size": 64}
    ready = bench.folder / "memory-prepare"
    name, trainer = f"memory-{given.child}", "least_squares" if given.child == "prepare" else "joint"
    if given.child != "prepare":
        shutil.rmtree(bench.folder / name, ignore_errors=True)
        shutil.copytree(ready, bench.folder / name)
        for path in (bench.folder / name / "modules" / "finetuned").glob("scheme-*.json"):
            path.unlink()  # the blocks in closed form are kept, what they served for is not
    space = bench.space(name, n, criterion="obs", trainer=trainer, block=block, valid_size=64)
    settings = replace(model_settings(space), steps=3, evaluations=1)
    if given.child in ("prepare", "joint"):
        prune(space)
        finetune_blocks(space)
    elif given.child == "alone":
        trial(space, starting_model(space, "baseline", 0), settings, "memory")
    else:
        space.fresh_model(), space.examples("train"), space.examples("valid")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def show(folder: Path) -> None:
    """Peak memory of both sides, and what each takes beyond a process that has only loaded model and data."""
    told = read_json(folder / "memory.json")
    base = told["loaded"]
    print(
        f"\npeak memory, MiB: only loaded {base:.0f}, one model alone {told['alone']:.0f}, "
        f"joint phase {told['joint']:.0f}"
    )
    print(
        f"{told['configurations']} configurations: {told['joint'] / told['alone']:.2f}x of the whole process, ", end=""
    )
    print(f"{(told['joint'] - base) / (told['alone'] - base):.2f}x beyond what is loaded")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=MODELS, default="t5")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/joint-memory"))
    parser.add_argument("--configurations", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import torch  # noqa: F401  (loaded on every side)

    if given.child:
        child(given)
    else:
        memory(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
