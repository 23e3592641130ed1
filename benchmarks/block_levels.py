"""Where composed models start: criteria, block trainers and block levels, before any model-level step.

    python benchmarks/block_levels.py [--shared ../shared] [-o .bench/block_levels]

T5 on Multi30K. Prints one row per recipe with the seconds of the block phase; writes results.json. A killed run
goes on where it was: blocks are found in their libraries again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from composer.files.environment import machine, versions
from composer.files.jsonfile import write_json
from composer.recipe import load_recipe
from composer.steps.build_model import build_model
from composer.steps.configure import generate_config, generate_scheme
from composer.steps.prune import prune
from composer.steps.tune_blocks import finetune_blocks
from composer.tasks.loss import mean_loss
from composer.workspace import Workspace

ATTENTION, LINEAR = [0.25, 0.5, 0.75, 0.0], [0.5, 0.7, 0.8, 0.8]
RECIPES = [
    ("l1", "distill", ["module"]),
    ("l1", "distill", ["sublayer"]),
    ("l1", "distill", ["module", "sublayer"]),
    ("l1", "distill", ["module", "sublayer", "layer"]),
    ("l1", "least_squares", ["module"]),
    ("l1", "least_squares", ["module", "sublayer"]),
    ("obs", "least_squares", ["module"]),
    ("obs", "least_squares", ["sublayer"]),
    ("obs", "least_squares", ["module", "sublayer"]),
    ("obs", "least_squares", ["module", "sublayer", "layer"]),
]


def measure(shared: Path, folder: Path, criterion: str, trainer: str, levels: list[str], steps_: int) -> dict[str, Any]:
    """Losses of the pruned and of the composed models of one recipe, and the seconds of its block phase."""
    given = {
        "model": str(shared / "models/t5-mini-multi30k"),
        "data": str(shared / "data/multi30k"),
        "folder": folder / f"{criterion}-{trainer}-{'-'.join(levels)}",
        "attention": ATTENTION,
        "linear": LINEAR,
        "criterion": criterion,
        "trainer": trainer,
        "block_levels": levels,
        "block": {"steps": steps_},
    }
    space = Workspace(load_recipe(None, given, file=False))
    generate_config(space)
    generate_scheme(space)
    began = time.perf_counter()
    prune(space)
    pruning = time.perf_counter() - began
    tuned = finetune_blocks(space).summary
    losses: dict[str, list[float]] = {"pruned": [], "composed": []}
    for i in range(len(ATTENTION)):
        for kind, modules in (("pruned", space.pruned), ("composed", space.finetuned)):
            out = space.folder / "models" / f"{i}-{kind}"
            build_model(space, i, modules=modules, output=out)
            from composer.models.folder import BaseModel

            losses[kind].append(mean_loss(BaseModel(out).load(), space.task, space.examples("valid")))
    return {
        "criterion": criterion,
        "trainer": trainer,
        "levels": levels,
        "prune_seconds": pruning,
        "block_seconds": tuned["seconds"],
        **losses,
    }


def main() -> None:
    """Measure every recipe and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/block_levels"))
    parser.add_argument("--steps", type=int, default=100, help="steps per block of distill")
    given = parser.parse_args()
    print("machine:", machine(), "\nversions:", versions(), "\n")
    heads = " ".join(f"{a:.0%}/{b:.0%}".rjust(9) for a, b in zip(ATTENTION, LINEAR, strict=True))
    print(f"{'criterion':9} {'trainer':13} {'block levels':22} {'seconds':>8} {heads}   (heads/linear removed)")
    rows = []
    for criterion, trainer, levels in RECIPES:
        row = measure(given.shared, given.output, criterion, trainer, levels, given.steps)
        rows.append(row)
        write_json(given.output / "results.json", {"machine": machine(), "versions": versions(), "rows": rows})
        if not any(r["criterion"] == criterion for r in rows[:-1]):
            _show(criterion, "(pruned only)", "", row["prune_seconds"], row["pruned"])
        _show(criterion, trainer, ",".join(levels), row["block_seconds"], row["composed"])
    print(f"\nrepeat with: python benchmarks/block_levels.py --steps {given.steps}")


def _show(criterion: str, trainer: str, levels: str, seconds: float, losses: list[float]) -> None:
    shown = " ".join(f"{loss:9.3f}" for loss in losses)
    print(f"{criterion:9} {trainer:13} {levels:22} {seconds:8.1f} {shown}", flush=True)


if __name__ == "__main__":
    main()
