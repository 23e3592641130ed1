"""N pruned models: learnt once together, against each one alone, with one ledger.

    python benchmarks/joint.py [t5|distilbert] [--configurations 8 16 4 2 1] [--steps 120] [-o .bench/joint-t5]

Two questions, kept apart. A: composing alone; both sides have the same masks (`obs`). B: the whole recipe against the
classic one (l1 masks, no blocks, each model fine-tuned whole). All configurations together get as many joint steps as
one model gets alone. Work counts until a baseline's final validation loss: blocks, joint steps and, where a model is
not there yet, the shortest finish that gets it there. Choosing masks counts in B; in A it is the same on both sides.
`--seeds 1 2 3 --configurations 4 --finish` asks how models compare at equal steps of their own. A killed run goes on
where it was. Writes results.json, from which `--tables` prints every table again and draws the picture.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import joint_tables as tables
from common import composed, plan

from composer import steps
from composer.jsonfile import read_json, write_json
from composer.library import Library
from composer.provenance import machine, versions
from composer.recipe import load_recipe
from composer.runs import evaluate_models, finetune_model, settings_of, trial
from composer.stages.evaluate import evaluate
from composer.start import start_of
from composer.tasks.evaluation import mean_loss
from composer.workspace import Workspace

RATES = [(0.5, 0.7), (0.25, 0.5), (0.75, 0.8), (0.25, 0.7), (0.5, 0.5), (0.25, 0.3), (0.5, 0.8), (0.75, 0.5)]
RATES += [(0.5, 0.6), (0.25, 0.8), (0.75, 0.7), (0.5, 0.3), (0.25, 0.6), (0.75, 0.6), (0.5, 0.4), (0.25, 0.4)]
"""(heads, linear); the first N of them. Every second one is mixed: its second part has the next one's rates."""
MODELS: dict[str, dict[str, Any]] = {
    "t5": {
        "model": "models/t5-mini-multi30k",
        "data": "data/multi30k",
        "parts": ("encoder.", "decoder."),
        "kinds": (("*Attention",), ("*.o", "*.wi", "*.wo")),
        "recipe": {"max_source_length": 64, "max_target_length": 64, "valid_size": 512, "test_size": 100},
        "rates": [0.0003, 0.001],
        "batch": 32,
    },
    "distilbert": {
        "model": "models/distilbert-mini-sst2",
        "data": "data/sst2",
        "parts": ("*.layer.[012].", "*.layer.[345]."),
        "kinds": (("attention",), ("*out_lin", "*lin1", "*lin2")),
        "recipe": {"task": "classification", "max_source_length": 64, "train_size": 10000, "valid_size": 436},
        "rates": [0.0001, 0.0003],
        "batch": 16,
    },
}
SHARES = [0.125, 0.25, 0.5, 1.0]
"""Of a baseline's steps: how long a finish, or in B the joint phase, may be; each with its own schedule."""


def configurations(model: dict[str, Any], n: int) -> list[dict[str, float]]:
    """The first ``n`` configurations, uniform and mixed in turn."""
    found = []
    for i, own in enumerate(RATES[:n]):
        other = RATES[(i + 1) % len(RATES)] if i % 2 else own
        found.append(
            {
                part + name: rate
                for part, rates in zip(model["parts"], (own, other), strict=True)
                for names, rate in zip(model["kinds"], rates, strict=True)
                for name in names
            }
        )
    return found


class Bench:
    """One model, one seed: workspaces below one folder, and what is measured in them."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        self.given, self.seed, self.model = given, seed, MODELS[given.task]
        self.folder = given.output / f"seed-{seed}"

    def space(self, name: str, n: int, **extra: Any) -> Workspace:
        """A workspace with the first ``n`` configurations, planned."""
        shared, batch = self.given.shared, self.model["batch"]
        options = {
            "model": str(shared / self.model["model"]),
            "data": str(shared / self.model["data"]),
            "folder": self.folder / name,
            "seed": self.seed,
            "finetune": {
                "steps": self.given.steps,
                "batch_size": batch,
                "evaluations": 3,
                "learning_rate": self.model["rates"][0],
            },
            **self.model["recipe"],
            **extra,
        }
        space = Workspace(load_recipe(None, options, file=False))
        plan(space, configurations(self.model, n))
        return space

    def baselines(self, question: str, n: int) -> dict[str, Any]:
        """Every configuration pruned and fine-tuned whole, at the first's best learning rate."""
        extra = {"criterion": "obs"} if question == "A" else {"criterion": "l1", "dead_columns": False}
        space = self.space(f"alone-{question}", n, **extra)
        pruned = steps.prune(space).summary["seconds"]
        settings, start = settings_of(space), start_of(space, "baseline", 0)
        tried = {
            rate: trial(space, start, replace(settings, learning_rate=rate), f"try-{rate:g}", keep=True)
            for rate in self.model["rates"]
        }
        best = min(tried, key=lambda rate: tried[rate]["final_loss"])
        rows = []
        for i in range(n):
            done = finetune_model(space, "baseline", i, learning_rate=best).summary
            row = {"start": done["first_loss"], "loss": done["final_loss"], "seconds": done["seconds"]}
            rows.append({**row, "metric": self._metric(space, space.model_folder("baseline", i))})
            print(f"  {question}, configuration {i} alone: {rows[-1]}", flush=True)
        return {
            "rows": rows,
            "steps": settings.steps,
            "prune_seconds": pruned,
            "learning_rate": best,
            "search": [
                {"learning_rate": rate, "loss": done["final_loss"], "seconds": done["seconds"]}
                for rate, done in tried.items()
            ],
        }

    def joint(self, n: int, count: int, rate: float, name: str = "") -> dict[str, Any]:
        """Closed forms and ``count`` joint steps for ``n`` configurations; 0 steps are closed forms alone."""
        name = name or f"joint-{n}-{count}-{rate:g}"
        block = {"steps": max(count, 1), "batch_size": self.model["batch"], "learning_rate": rate, "evaluations": 1}
        trainer = "joint" if count else "least_squares"
        space = self.space(name, n, criterion="obs", trainer=trainer, block={**block, "valid_size": 64})
        held = self.folder / f"{name}.json"
        if held.is_file():
            return {**read_json(held), "space": space}
        began = time.perf_counter()
        pruned = steps.prune(space).summary["seconds"]
        steps.finetune_blocks(space)
        spent = time.perf_counter() - began
        work = (Library(space.finetuned).manifest(space.scheme().digest) or {})["work"]
        shared = work.get("shared", 0.0)
        made = {
            "configurations": n,
            "joint_steps": count,
            "learning_rate": rate,
            "wall_seconds": spent,
            "prune_seconds": pruned,
            "block_seconds": sum(work.values()) - shared,
            "joint_seconds": shared,
            **self._composed(space),
        }
        write_json(held, made)
        return {**made, "space": space}

    def finish(self, made: dict[str, Any], goals: list[float], rate: float) -> list[dict[str, Any]]:
        """For each configuration the shortest of some finishes that ends at or below its goal."""
        rows = []
        for i, goal in enumerate(goals):
            row = {"steps": 0, "seconds": 0.0, "loss": made["loss"][i], "reached": made["loss"][i] <= goal}
            settings = replace(settings_of(made["space"]), learning_rate=rate)
            for share in SHARES:
                if row["reached"]:
                    break
                tuned = replace(settings, steps=max(1, round(share * settings.steps)))
                done = trial(made["space"], start_of(made["space"], "composed", i), tuned, f"finish-{i}-{share:g}")
                row = {"steps": tuned.steps, "seconds": done["seconds"], "loss": done["final_loss"]}
                row["reached"] = row["loss"] <= goal
            rows.append(row)
        return rows

    def finished(self, made: dict[str, Any], rate: float) -> list[dict[str, Any]]:
        """Every composed model fine-tuned for as many steps as its baseline."""
        rows = []
        for i in range(made["configurations"]):
            done = finetune_model(made["space"], "composed", i, learning_rate=rate).summary
            metric = self._metric(made["space"], made["space"].model_folder("composed", i))
            rows.append({"loss": done["final_loss"], "seconds": done["seconds"], "metric": metric})
            print(f"  seed {self.seed}, configuration {i} composed: {rows[-1]}", flush=True)
        return rows

    def one_more(self, made: dict[str, Any], goals: list[float], rate: float) -> dict[str, Any]:
        """What configuration ``n`` costs when the joint library of the first ``n`` is there already."""
        n, name = made["configurations"], f"more-{made['configurations']}"
        source, target = made["space"].folder / "modules", self.folder / name / "modules"
        if not (self.folder / f"{name}.json").is_file():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        more = self.joint(n + 1, made["joint_steps"], made["learning_rate"], name)
        last = self.finish(more, [*more["loss"][:n], goals[n]], rate)[n]
        return {**{key: value for key, value in more.items() if key != "space"}, "finish": last, "goal": goals[n]}

    def _composed(self, space: Workspace) -> dict[str, Any]:
        """Validation loss and test metric of every configuration as it comes from the library."""
        found: dict[str, Any] = {"loss": [], "metric": []}
        for model in composed(space, space.finetuned):
            found["loss"].append(mean_loss(model, space.task, space.examples("valid")))
            measured = evaluate(model, space.base.layout, space.task, space.examples("test"))
            found["metric"].append(measured["metrics"][space.task.main_metric])
        return found

    def _metric(self, space: Workspace, folder: Path) -> float:
        done = evaluate_models(space, [folder], output=space.result_file(folder), renew=True)
        return float(done.summary["results"][0]["metrics"][space.task.main_metric])


def run(given: argparse.Namespace) -> None:
    """Everything that was asked for, kept in results.json as it comes."""
    results: dict[str, Any] = {"machine": machine(), "versions": versions(), "task": given.task, "steps": given.steps}
    results |= {"rates": RATES, "seeds": {}, "command": " ".join(["python", *sys.argv])}
    for seed in given.seeds:
        bench, most = Bench(given, seed), max(given.configurations)
        told: dict[str, Any] = results["seeds"].setdefault(str(seed), {"alone": {}, "A": [], "B": []})
        told["alone"]["A"] = bench.baselines("A", most)
        goals = [row["loss"] for row in told["alone"]["A"]["rows"]]
        rate = told["alone"]["A"]["learning_rate"]
        for n in given.configurations:
            made = bench.joint(n, given.joint_steps or given.steps, rate)
            made["finish"] = bench.finish(made, goals[:n], rate)
            if given.finish:
                made["finished"] = bench.finished(made, rate)
            if n == given.configurations[0]:
                lost = [other for other in bench.model["rates"] if other != rate] if not given.finish else []
                made["search"] = [_plain(bench.joint(n, made["joint_steps"], other)) for other in lost]
                if n < most:
                    told["more"] = bench.one_more(made, goals, rate)
            told["A"].append(_plain(made))
            _keep(given, results)
        if given.classic:
            told["alone"]["B"] = bench.baselines("B", given.classic)
            goals = [row["loss"] for row in told["alone"]["B"]["rows"]]
            for n in (n for n in given.configurations if n <= given.classic):
                told["B"].append(_plain(_shortest(bench, n, goals[:n], rate)))
                _keep(given, results)


def _shortest(bench: Bench, n: int, goals: list[float], rate: float) -> dict[str, Any]:
    """B: the shortest joint phase, none first, after which every configuration is at its goal."""
    made: dict[str, Any] = {}
    for share in (0.0, *SHARES):
        made = bench.joint(n, round(share * bench.given.steps), rate)
        if all(loss <= goal for loss, goal in zip(made["loss"], goals, strict=True)):
            break
    made["finish"] = bench.finish(made, goals, rate)
    return made


def _plain(made: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in made.items() if key != "space"}


def _keep(given: argparse.Namespace, results: dict[str, Any]) -> None:
    write_json(given.output / "results.json", results)


def memory(given: argparse.Namespace) -> None:
    """Peak memory of three steps of each side, each in a process of its own, beside one that only loads."""
    found: dict[str, float] = {}
    for side in ("prepare", "loaded", "alone", "joint"):
        words = [sys.executable, __file__, given.task, "--shared", str(given.shared), "--child", side]
        words += ["-o", str(given.output), "--configurations", str(given.configurations[0])]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        found[side] = float(said.splitlines()[-1])
    write_json(given.output / "memory.json", {**found, "unit": "MiB", "configurations": given.configurations[0]})
    tables.show_memory(given.output)


def child(given: argparse.Namespace) -> None:
    """One side of :func:`memory`, on blocks that ``prepare`` has made; prints its peak in MiB."""
    n, bench = given.configurations[0], Bench(given, 1)
    block = {"steps": 3, "batch_size": bench.model["batch"], "evaluations": 1, "valid_size": 64}
    ready = bench.folder / "memory-prepare"
    name, trainer = f"memory-{given.child}", "least_squares" if given.child == "prepare" else "joint"
    if given.child != "prepare":
        shutil.rmtree(bench.folder / name, ignore_errors=True)
        shutil.copytree(ready, bench.folder / name)
        for path in (bench.folder / name / "modules" / "finetuned").glob("scheme-*.json"):
            path.unlink()  # the blocks in closed form are kept, what they served for is not
    space = bench.space(name, n, criterion="obs", trainer=trainer, block=block, valid_size=64)
    settings = replace(settings_of(space), steps=3, evaluations=1)
    if given.child in ("prepare", "joint"):
        steps.prune(space)
        steps.finetune_blocks(space)
    elif given.child == "alone":
        trial(space, start_of(space, "baseline", 0), settings, "memory")
    else:
        space.fresh_model(), space.examples("train"), space.examples("valid")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> int:
    """Run what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=MODELS, default="t5")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, help="folder [.bench/joint-TASK]")
    parser.add_argument("--configurations", type=int, nargs="+", default=[8, 16, 4, 2, 1])
    parser.add_argument("--classic", type=int, default=8, help="configurations at most with which B is asked; 0: not")
    parser.add_argument("--steps", type=int, default=120, help="of each model fine-tuned whole")
    parser.add_argument("--joint-steps", type=int, help="of all configurations together [as many]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--finish", action="store_true", help="composed models get as many steps of their own too")
    parser.add_argument("--tables", action="store_true", help="only print the tables of results.json again")
    parser.add_argument("--memory", action="store_true", help="only measure peak memory")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.output = given.output or Path(f".bench/joint-{given.task}")
    import torch  # noqa: F401  (machine() tells its number of threads)

    if given.child:
        child(given)
    elif given.memory:
        memory(given)
    else:
        if not given.tables:
            run(given)
        tables.show(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
