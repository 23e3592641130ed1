"""N pruned models: learnt once together, against each one alone. T5 on Multi30K.

    python benchmarks/joint.py [--configurations 8 4 2 1] [--steps 120] [--joint-steps 240] [-o .bench/joint]

Two questions, kept apart. A: composing alone; both sides have the same masks (`obs`). B: the whole recipe against the
classic one (l1 masks, no blocks, each model fine-tuned whole). Each side's work counts until the baseline's final
validation loss: blocks, joint steps and finishing steps on ours; choosing masks is in B, and on both sides in A.
A killed run goes on where it was. Writes results.json and prints tables, which can be recomputed from it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import losses, plan

from composer import steps
from composer.jsonfile import write_json
from composer.library import Library
from composer.provenance import machine, versions
from composer.recipe import load_recipe
from composer.runs import settings_of, trial
from composer.start import start_of
from composer.workspace import Workspace

RATES = [(0.5, 0.7), (0.25, 0.5), (0.75, 0.8), (0.25, 0.7), (0.5, 0.5), (0.25, 0.3), (0.5, 0.8), (0.75, 0.5)]
"""(heads, linear); the first N of them. Every second one is mixed: its decoder has the next one's rates."""
CLASSIC_RATES = [0.0003, 0.001]
FINISH = [0.125, 0.25, 0.5, 1.0]


def configurations(n: int) -> list[dict[str, Any]]:
    """The first ``n`` configurations, uniform and layerwise-mixed in turn."""
    found = []
    for i, (heads, linear) in enumerate(RATES[:n]):
        other = RATES[(i + 1) % len(RATES)] if i % 2 else (heads, linear)
        sides = {"encoder": (heads, linear), "decoder": other}
        found.append(
            {
                f"{side}.{pattern}": rate
                for side, (a, b) in sides.items()
                for pattern, rate in (("*Attention", a), ("*.o", b), ("*.wi", b), ("*.wo", b))
            }
        )
    return found


def workspace(given: argparse.Namespace, folder: Path, n: int, **extra: Any) -> Workspace:
    """A workspace with the first ``n`` configurations, planned and pruned."""
    options = {
        "model": str(given.shared / "models/t5-mini-multi30k"),
        "data": str(given.shared / "data/multi30k"),
        "folder": folder,
        "max_source_length": 64,
        "max_target_length": 64,
        "valid_size": 512,
        "seed": 1,
        "finetune": {"steps": given.steps, "batch_size": 32, "evaluations": 3, "learning_rate": 0.0003},
        **extra,
    }
    space = Workspace(load_recipe(None, options, file=False))
    plan(space, configurations(n))
    return space


def baselines(space: Workspace, n: int, rates: list[float]) -> dict[str, Any]:
    """Every configuration pruned and fine-tuned whole; of several learning rates the first configuration's best."""
    settings = settings_of(space)
    tried = {
        rate: trial(
            space, start_of(space, "baseline", 0), replace(settings, learning_rate=rate), f"try-{rate:g}", keep=True
        )
        for rate in rates
    }
    best = min(tried, key=lambda rate: tried[rate]["final_loss"])
    rows = []
    for i in range(n):
        tuned = replace(settings, learning_rate=best)
        name = f"try-{best:g}" if i == 0 else f"alone-{i}"
        done = trial(space, start_of(space, "baseline", i), tuned, name, keep=i == 0)
        rows.append({"start": done["first_loss"], "loss": done["final_loss"], "seconds": done["seconds"]})
        print(f"  alone {i}: {rows[-1]}", flush=True)
    lost = sum(done["seconds"] for rate, done in tried.items() if rate != best)
    return {"rows": rows, "learning_rate": best, "search_seconds": lost, "steps": settings.steps}


def ours(given: argparse.Namespace, n: int, goals: dict[str, list[float]]) -> dict[str, Any]:
    """Blocks, joint steps, and for each configuration and goal the finishing steps until its loss."""
    block = {
        "steps": given.joint_steps,
        "batch_size": 32,
        "learning_rate": 0.0002,
        "valid_size": 256,
        "evaluations": 3,
    }
    space = workspace(given, given.output / f"joint-{n}", n, criterion="obs", trainer="joint", block=block)
    pruned = steps.prune(space).summary["seconds"]
    done = steps.finetune_blocks(space).summary
    work = (Library(space.finetuned).manifest(space.scheme().digest) or {})["work"]
    joint = work["shared"]
    began = losses(space, space.finetuned)
    finish: dict[str, list[dict[str, Any]]] = {}
    for question, wanted in goals.items():
        finish[question] = [_finish(space, i, began[i], goal) for i, goal in enumerate(wanted[:n])]
    return {
        "prune_seconds": pruned,
        "block_seconds": sum(work.values()) - joint,
        "joint_seconds": joint,
        "joint_steps": done["joint"]["steps"],
        "loss": began,
        "finish": finish,
    }


def _finish(space: Workspace, i: int, began: float, goal: float) -> dict[str, Any]:
    """The shortest of some budgets, each with its own schedule, that ends at or below ``goal``."""
    if began <= goal:
        return {"steps": 0, "seconds": 0.0, "loss": began, "reached": True}
    settings = replace(settings_of(space), learning_rate=0.0002)
    row: dict[str, Any] = {}
    for share in FINISH:
        count = max(1, round(share * settings.steps))
        done = trial(space, start_of(space, "composed", i), replace(settings, steps=count), f"finish-{i}-{share:g}")
        loss = done["final_loss"]
        row = {"steps": count, "seconds": done["seconds"], "loss": loss, "reached": loss <= goal}
        if row["reached"]:
            break
    return row


def ledger(n: int, alone: dict[str, dict[str, Any]], made: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds of both sides for the first ``n`` configurations, A and B."""
    rows = []
    for question, side in alone.items():
        finish = made["finish"][question]
        fixed = made["block_seconds"] + made["joint_seconds"] + (made["prune_seconds"] if question == "B" else 0)
        total = fixed + sum(row["seconds"] for row in finish)
        theirs = sum(row["seconds"] for row in side["rows"][:n]) + side["search_seconds"] * (question == "B")
        rows.append(
            {
                "question": question,
                "configurations": n,
                "alone_seconds": theirs,
                "ours_seconds": total,
                "of_it": {
                    "masks": made["prune_seconds"] if question == "B" else 0.0,
                    "blocks": made["block_seconds"],
                    "joint": made["joint_seconds"],
                    "finish": total - fixed,
                },
                "reached": sum(row["reached"] for row in finish),
                "times_less": theirs / total,
            }
        )
    return rows


def main() -> int:
    """Run both sides and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/joint"))
    parser.add_argument("--configurations", type=int, nargs="+", default=[8, 4, 2, 1])
    parser.add_argument("--classic", type=int, default=4, help="configurations at most with which B is asked")
    parser.add_argument("--steps", type=int, default=120, help="of each model fine-tuned whole")
    parser.add_argument("--joint-steps", type=int, default=240, help="of all configurations together")
    given = parser.parse_args()
    import torch  # noqa: F401  (machine() tells its number of threads)

    print("machine:", machine(), "\nversions:", versions(), "\n", flush=True)
    most = max(given.configurations)
    same = workspace(given, given.output / "same-masks", most, criterion="obs")
    steps.prune(same)
    classic = workspace(given, given.output / "classic", most, criterion="l1", dead_columns=False)
    steps.prune(classic)
    results: dict[str, Any] = {"machine": machine(), "versions": versions(), "alone": {}, "ours": {}, "ledger": []}
    alone: dict[str, dict[str, Any]] = results["alone"]
    alone["A"] = baselines(same, most, [0.0003])
    for n in given.configurations:
        if n <= given.classic and "B" not in alone:
            alone["B"] = baselines(classic, given.classic, CLASSIC_RATES)
        asked = [question for question in alone if question == "A" or n <= given.classic]
        made = ours(given, n, {q: [row["loss"] for row in alone[q]["rows"]] for q in asked})
        results["ours"][str(n)] = made
        rows = ledger(n, {question: alone[question] for question in asked}, made)
        results["ledger"] += rows
        write_json(given.output / "results.json", results)
        _show(n, alone, made, rows)
    print(f"\nrepeat with: python {' '.join(sys.argv)}")
    return 0


def _show(n: int, alone: dict[str, dict[str, Any]], made: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    print(f"\n{n} configurations, {made['joint_steps']} joint steps; validation loss (+: not reached, * mixed):")
    for i, (heads, linear) in enumerate(RATES[:n]):
        line = f"  {heads:4.0%}/{linear:4.0%}{'*' if i % 2 else ' '} ours {made['loss'][i]:.3f}"
        for question, finish in made["finish"].items():
            row, to = alone[question]["rows"][i], finish[i]
            line += f" | {question} alone {row['start']:.3f} to {row['loss']:.3f}, "
            line += f"ours after {to['steps']} more steps {to['loss']:.3f}{'' if to['reached'] else '+'}"
        print(line)
    for row in rows:
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in row["of_it"].items())
        print(
            f"  {row['question']}: alone {row['alone_seconds']:.0f} s, ours {row['ours_seconds']:.0f} s ({parts}): "
            f"{row['times_less']:.1f}x less; {row['reached']} of {n} reached",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
