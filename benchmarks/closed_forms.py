"""What blocks in closed form cost and bring: T5 on Multi30K, before any model-level step.

    python benchmarks/closed_forms.py [--shared ../shared] [-o .bench/closed_forms] [--parts cost table solver speed]

cost: the phase for eight configurations against one training epoch, one more configuration on the stored library, peak
memory. table: validation loss of pruned, repaired and swept models over rates. solver: seconds and local error against
SparseGPT and ALPS (Meng et al. 2024; written here as an oracle) on real captured inputs. speed, only when asked for:
seconds, losses and memory before and after a commit (closed_forms_speed.py). Writes results.json.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from closed_forms_speed import BEFORE, CASES, speed
from common import losses, plan
from joint import MODELS, configurations
from torch import Tensor

from composer.files.environment import machine, versions
from composer.files.jsonfile import write_json
from composer.progress import SILENT
from composer.recipe import load_recipe
from composer.steps.build_model import build_model
from composer.steps.prune import prune
from composer.steps.settings import model_settings
from composer.steps.starting_model import starting_model
from composer.steps.tune_blocks import finetune_blocks
from composer.steps.tune_model import trial
from composer.tasks.loss import mean_loss
from composer.tensors.least_squares import masked_least_squares, relative_output_error
from composer.tensors.sparsegpt import sparsegpt
from composer.tensors.weight_order import weight_order
from composer.workspace import Workspace

RATES = [(0.25, 0.5), (0.5, 0.7), (0.75, 0.8), (0.0, 0.8)]
PARTS = ["cost", "table", "solver"]
MODULES = [
    "encoder.block.1.layer.0.SelfAttention.o",
    "encoder.block.1.layer.1.DenseReluDense.wi",
    "encoder.block.1.layer.1.DenseReluDense.wo",
    "decoder.block.2.layer.1.EncDecAttention.o",
    "decoder.block.1.layer.2.DenseReluDense.wi",
    "decoder.block.1.layer.2.DenseReluDense.wo",
]


def workspace(given: argparse.Namespace, name: str, rates: list[dict[str, Any]], **extra: Any) -> Workspace:
    """A planned workspace."""
    model = str(given.shared / "models/t5-mini-multi30k")
    options = {
        "model": model,
        "data": str(given.shared / "data/multi30k"),
        "folder": given.output / name,
        "max_source_length": 64,
        "max_target_length": 64,
        "trainer": "least_squares",
        "finetune": {"batch_size": 32, "steps": 20, "evaluations": 1},
        **extra,
    }
    space = Workspace(load_recipe(None, options, file=False))
    plan(space, rates, force=True)
    return space


def timed(work: Any, *args: Any, **options: Any) -> tuple[Any, float]:
    """The result and the wall seconds."""
    began = time.perf_counter()
    return work(*args, **options), time.perf_counter() - began


def cost(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the phase for eight configurations, of one epoch, and of one configuration more."""
    eight = configurations(MODELS["t5"], 8)
    model = sum(p.numel() * 4 for p in workspace(given, "cost", eight).fresh_model().parameters())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    space = workspace(given, "cost", eight, criterion="obs")
    _, pruning = timed(prune, space)
    done, blocks = timed(finetune_blocks, space)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    moments = sum(i.bytes for i in space.calibration(space.scheme(), SILENT).inputs)
    more = workspace(given, "cost", [*eight, eight[0] | {"*.wi": 0.55, "*.wo": 0.45}], criterion="obs")
    parts = [timed(prune, more)[1], timed(finetune_blocks, more)[1], timed(build_model, more, 8)[1]]
    tuned = trial(space, starting_model(space, "dense", None), replace(model_settings(space), steps=20), "step")
    step = tuned["seconds"] / tuned["steps"]
    epoch = step * len(space.examples("train")) / 32
    return {
        "prune_seconds": pruning,
        "block_seconds": blocks,
        "blocks": done.summary["tuned"],
        "step_seconds": step,
        "epoch_seconds": epoch,
        "of_epoch": blocks / epoch,
        "with_masks_of_epoch": (pruning + blocks) / epoch,
        "one_more_seconds": parts,
        "one_more_of_300_steps": sum(parts) / (300 * step),
        "rss_before_mib": before / 1024,
        "rss_peak_mib": peak / 1024,
        "model_mib": model / 2**20,
        "moments_mib": moments / 2**20,
    }


def table(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Validation loss over rates, for each stage of each criterion."""
    rates = [{"*Attention": a, "*.o": b, "*.wi": b, "*.wo": b} for a, b in RATES]
    found: list[dict[str, Any]] = []
    for name, extra in (
        ("l1", {"criterion": "l1", "dead_columns": False}),
        ("obs, dead columns not used", {"criterion": "obs", "dead_columns": False}),
        ("obs", {"criterion": "obs"}),
    ):
        for levels in (["module"], ["module", "sublayer"], ["module", "sublayer", "layer"]):
            if len(levels) != 2 and name != "obs":
                continue
            folder = f"table-{name.replace(', ', '-').replace(' ', '-')}-{len(levels)}"
            space = workspace(given, folder, rates, block_levels=levels, **extra)
            prune(space)
            _, seconds = timed(finetune_blocks, space)
            if len(levels) == 2:
                found.append({"what": f"{name}: pruned", "seconds": None, "loss": losses(space, space.pruned)})
            found.append(
                {"what": f"{name}: + {', '.join(levels)}", "seconds": seconds, "loss": losses(space, space.finetuned)}
            )
            _line(found[-2:] if len(levels) == 2 else found[-1:])
            if len(levels) == 2:
                found.append(_swept(space, name))
                _line(found[-1:])
    return found


def _swept(space: Workspace, name: str) -> dict[str, Any]:
    began, loss = time.perf_counter(), []
    for i in range(len(RATES)):
        model, _, _ = starting_model(space, "composed", i, sweep=True).model(space)
        loss.append(mean_loss(model, space.task, space.examples("valid")))
    return {"what": f"{name}: + sweep", "seconds": time.perf_counter() - began, "loss": loss}


def alps(W: Tensor, G: Tensor, removed: int, *, damping: float = 0.01, iterations: int = 300) -> Tensor:
    """Masks by ADMM (Meng et al. 2024): ``W`` solves the ridge problem, ``D`` is its sparse copy, the penalty grows."""
    A = G.double().clone()
    A.diagonal().add_(damping * float(A.diagonal().mean()))
    scale = float(A.diagonal().mean())
    values, vectors = torch.linalg.eigh(A / scale)
    target = W.double() @ (A / scale)
    D, V, rho = W.double(), torch.zeros_like(W, dtype=torch.float64), 0.1
    keep = torch.ones_like(W, dtype=torch.bool)
    for step in range(iterations):
        solved = ((target + rho * D - V) @ vectors / (values + rho)) @ vectors.T
        wanted = solved + V / rho
        held = keep
        keep = torch.ones(W.numel(), dtype=torch.bool)
        keep[wanted.abs().flatten().argsort()[:removed]] = False
        keep = keep.reshape(W.shape)
        D = wanted.masked_fill(~keep, 0.0)
        V = V + rho * (solved - D)
        if step % 3 == 2:
            moved = int((keep != held).sum())
            rho *= 1.3 if moved > 0.1 * removed else 1.2 if moved > 0.005 * removed else 1.1
            if not moved:
                break
    return keep


def solver(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Local error and seconds for all three rates of each module together."""
    space = workspace(given, "solver", configurations(MODELS["t5"], 1), criterion="obs")
    sample = space.calibration(space.scheme(), SILENT)
    grams = {path: found[path].matrix for path, found in sample.moments({path: [path] for path in MODULES})}
    parameters = dict(sample.model.named_parameters())
    names = ("rounds (obs)", "SparseGPT", "ALPS", "l1, repaired")
    rows: dict[str, dict[str, Any]] = {name: {"seconds": 0.0, "error": [0.0, 0.0, 0.0]} for name in names}
    for path in MODULES:
        W, G = parameters[f"{path}.weight"].detach(), grams[path]
        order, seconds = timed(weight_order, W, G, damping=0.01)
        rows["rounds (obs)"]["seconds"] += seconds
        for k, rate in enumerate((0.5, 0.7, 0.8)):
            removed = round(rate * W.numel())
            makers = {
                "rounds (obs)": partial(_by_rank, order, removed),
                "SparseGPT": None,
                "ALPS": partial(alps, W, G, removed),
                "l1, repaired": partial(_by_rank, W.abs(), removed),
            }
            for name, make in makers.items():
                began = time.perf_counter()
                if make is None:
                    weight = sparsegpt(W, G, removed)[1]
                else:
                    weight = masked_least_squares(W, G, make(), damping=0.01, tolerance=1e-4)[0]
                rows[name]["seconds"] += time.perf_counter() - began
                rows[name]["error"][k] += relative_output_error(W.double(), weight.double(), G) / len(MODULES)
    for name, row in rows.items():
        shown = " ".join(f"{error:.5f}" for error in row["error"])
        print(f"  {name:16} {shown}   {row['seconds']:.1f} s", flush=True)
    return [{"what": name, **row} for name, row in rows.items()]


def _speed(given: argparse.Namespace) -> dict[str, Any]:
    return speed(given.shared, given.output / "speed", given.before, given.cases)


def _by_rank(scores: Tensor, removed: int) -> Tensor:
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[scores.flatten().argsort(stable=True)[:removed]] = False
    return keep.reshape(scores.shape)


def _line(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        shown = " ".join(f"{loss:7.3f}" for loss in row["loss"])
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        print(f"  {row['what']:44} {shown}   {seconds}", flush=True)


def main() -> int:
    """Measure the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/closed_forms"))
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=[*PARTS, "speed"])
    parser.add_argument("--before", default=BEFORE, help="commit that speed compares with")
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES, help="of speed")
    given = parser.parse_args()
    print("machine:", machine(), "\nversions:", versions(), "\n", flush=True)
    results: dict[str, Any] = {"machine": machine(), "versions": versions()}
    heads = " ".join(f"{a:.0%}/{b:.0%}".rjust(7) for a, b in RATES)
    titles = {
        "table": f"heads/linear removed: {heads}",
        "solver": "mean relative error at 50, 70, 80 %; all rates",
        "cost": "cost",
        "speed": "speed",
    }
    for part, measure in (("cost", cost), ("table", table), ("solver", solver), ("speed", _speed)):
        if part in given.parts:
            print(titles[part], flush=True)
            results[part] = measure(given)
            write_json(given.output / "results.json", results)
            if part == "cost":
                for name, value in results[part].items():
                    print(f"  {name:24} {value if not isinstance(value, float) else round(value, 3)}", flush=True)
    print(f"\nrepeat with: python {' '.join(sys.argv)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
