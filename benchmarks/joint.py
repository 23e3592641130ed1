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
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joint_tables as tables
from common import composed, plan

from composer.evaluation.measure import measure
from composer.files.environment import machine, versions
from composer.files.jsonfile import read_json, write_json
from composer.library.store import Library
from composer.recipe import load_recipe
from composer.scheme.graph import SHARED
from composer.steps.build_model import build_model
from composer.steps.evaluate import evaluate
from composer.steps.prune import prune
from composer.steps.settings import model_settings
from composer.steps.starting_model import starting_model
from composer.steps.tune_blocks import finetune_blocks
from composer.steps.tune_model import finetune_model, trial
from composer.tasks.loss import mean_loss
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
        "joint_valid": 64,
    },
    "distilbert": {
        "model": "models/distilbert-mini-sst2",
        "data": "data/sst2",
        "parts": ("*.layer.[012].", "*.layer.[345]."),
        "kinds": (("attention",), ("*out_lin", "*lin1", "*lin2")),
        "recipe": {"task": "classification", "max_source_length": 64, "train_size": 10000, "valid_size": 436},
        "rates": [0.0001, 0.0003],
        "batch": 16,
        "joint_valid": 436,  # a sentence has one label, a translation a dozen tokens
    },
}
EPOCHS, SAMPLE, BLOCK_RATES = 20, 512, [0.001, 0.0003]
"""Of the original recipe's blocks: passes, over how many examples, and the learning rates that are tried."""
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


class SeededRuns:
    """One model, one seed: workspaces below one folder, and what is measured in them.

    ``distill`` is the weight of the base model's answers in what is trained.
    """

    distill = 0.0

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        self.given, self.seed, self.model = given, seed, MODELS[given.task]
        self.folder = given.output / f"seed-{seed}"

    def space(self, name: str, n: int, *, steps: int | None = None, **extra: Any) -> Workspace:
        """A workspace with the first ``n`` configurations, planned; ``steps`` of one model wins over the command's."""
        shared, batch = self.given.shared, self.model["batch"]
        options = {
            "model": str(shared / self.model["model"]),
            "data": str(shared / self.model["data"]),
            "folder": self.folder / name,
            "seed": self.seed,
            "finetune": {
                "steps": steps or self.given.steps,
                "batch_size": batch,
                "evaluations": 3,
                "learning_rate": self.model["rates"][0],
                "distill": self.distill,
            },
            **self.model["recipe"],
            **extra,
        }
        space = Workspace(load_recipe(None, options, file=False))
        # Runs and blocks are known by what shapes them; the plan only says which of them are meant.
        plan(space, configurations(self.model, n), force=True)
        return space

    def sparsity(self, n: int) -> list[float]:
        """Share of the target weights that each configuration removes."""
        space = self.alone("A", n)
        return [space.scheme().sparsity(i, space.base.layout) for i in range(n)]

    def alone(self, question: str, n: int, steps: int | None = None) -> Workspace:
        """Where the models of a question are fine-tuned whole."""
        extra: dict[str, Any] = {"criterion": "obs"} if question == "A" else {"criterion": "l1", "dead_columns": False}
        return self.space(f"alone-{question}", n, steps=steps, **extra)

    def baselines(self, question: str, n: int) -> dict[str, Any]:
        """Every configuration pruned and fine-tuned whole, at the first's best learning rate."""
        space = self.alone(question, n)
        pruned = prune(space).summary["seconds"]
        settings, start = model_settings(space), starting_model(space, "baseline", 0)
        tried = {
            rate: trial(space, start, replace(settings, learning_rate=rate), f"try-{rate:g}", keep=True)
            for rate in self.model["rates"]
        }
        best = min(tried, key=lambda rate: tried[rate]["final_loss"])
        rows = []
        for i in range(n):
            done = finetune_model(space, "baseline", i, learning_rate=best).summary
            row = {"start": done["first_loss"], "loss": done["final_loss"], "seconds": done["seconds"]}
            rows.append({**row, "metric": self.metric(space, space.model_folder("baseline", i))})
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

    def joint(self, n: int, count: int, rate: float, name: str = "", folder: str = "") -> dict[str, Any]:
        """Closed forms and ``count`` joint steps for ``n`` configurations; 0 steps are closed forms alone.

        Args:
            name: of the record.
            folder: of the library, where several joint phases share the closed forms of one; by default as the record.
        """
        name = name or f"joint-{n}-{count}-{rate:g}" + (f"-distill-{self.distill:g}" if self.distill else "")
        block = {"steps": max(count, 1), "batch_size": self.model["batch"], "learning_rate": rate, "evaluations": 1}
        block |= {"evaluations": 3} if self.distill else {}
        block["valid_size"] = self.model["joint_valid"]
        trainer = "joint" if count else "least_squares"
        space = self.space(folder or name, n, criterion="obs", trainer=trainer, block=block)
        return {**self._blocks(name, space, n, count, rate), "space": space}

    def original(self, n: int) -> dict[str, Any]:
        """The original recipe: l1 masks, every block's variants distilled side by side, at the better of two rates."""
        tried = []
        for rate in BLOCK_RATES:
            batch, name = self.model["batch"], f"original-{n}-{rate:g}"
            count = EPOCHS * SAMPLE // batch
            block = {"steps": count, "batch_size": batch, "learning_rate": rate, "patience": count, "valid_size": 64}
            classic: dict[str, Any] = {"criterion": "l1", "dead_columns": False, "trainer": "distill", "block": block}
            few = self.space(name, n, train_size=SAMPLE, **classic)
            made = self._blocks(name, few, n, 0, rate)
            tried.append({**made, "space": self.space(name, n, **classic)})  # a finish sees all examples
            print(f"  original recipe, block rate {rate:g}: {made['block_seconds']:.0f} s, {made['loss']}", flush=True)
        best = min(tried, key=lambda made: sum(made["loss"]))
        return {**best, "search": [_plain(made) for made in tried if made is not best]}

    def _blocks(self, name: str, space: Workspace, n: int, count: int, rate: float) -> dict[str, Any]:
        """Masks and blocks of ``space``, and what its configurations are worth as they come from the library."""
        held = self.folder / f"{name}.json"
        if held.is_file():
            return dict(read_json(held))
        began, processor = time.perf_counter(), time.process_time()
        pruned = prune(space).summary["seconds"]
        # Blocks are kept; only a library that several joint phases share has the record of another one.
        finetune_blocks(space, force=True)
        spent, processor = time.perf_counter() - began, time.process_time() - processor
        library = Library(space.finetuned)
        manifest = library.manifest(space.scheme().digest) or {}
        work, theta = manifest["work"], manifest["addresses"].get(SHARED)
        shared = work.get(SHARED, 0.0)
        made = {
            "configurations": n,
            "joint_steps": count,
            "learning_rate": rate,
            "wall_seconds": spent,
            "processor_share": processor / spent,
            "prune_seconds": pruned,
            "block_seconds": sum(work.values()) - shared,
            "joint_seconds": shared,
            "mean": [[row["step"], row["valid_loss"]] for row in library.stats(theta)["mean"]] if theta else [],
            **self._composed(space),
        }
        write_json(held, made)
        return made

    def finish(
        self, made: dict[str, Any], goals: list[float], rate: float, shares: Sequence[float] = SHARES
    ) -> list[dict[str, Any]]:
        """For each configuration the shortest of some finishes that ends at or below its goal."""
        rows = []
        for i, goal in enumerate(goals):
            row = {"steps": 0, "seconds": 0.0, "loss": made["loss"][i], "reached": made["loss"][i] <= goal}
            settings = replace(model_settings(made["space"]), learning_rate=rate)
            for share in shares:
                if row["reached"]:
                    break
                tuned = replace(settings, steps=max(1, round(share * settings.steps)))
                done = trial(
                    made["space"], starting_model(made["space"], "composed", i), tuned, f"finish-{i}-{share:g}"
                )
                row = {"steps": tuned.steps, "seconds": done["seconds"], "loss": done["final_loss"]}
                row["reached"] = row["loss"] <= goal
            rows.append(row)
        return rows

    def finished(self, made: dict[str, Any], rate: float) -> list[dict[str, Any]]:
        """Every composed model fine-tuned for as many steps as its baseline."""
        rows = []
        for i in range(made["configurations"]):
            done = finetune_model(made["space"], "composed", i, learning_rate=rate).summary
            metric = self.metric(made["space"], made["space"].model_folder("composed", i))
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
        timed = self.folder / f"{name}-wall.json"
        if not timed.is_file():
            write_json(timed, self._walls(more, n, rate))
        return {**_plain(more), "finish": last, "goal": goals[n], **read_json(timed)}

    def _walls(self, more: dict[str, Any], i: int, rate: float) -> dict[str, float]:
        """Wall seconds, loading and validation included: the last step to a model on disk; the same one alone."""
        began = time.perf_counter()
        build_model(more["space"], i, force=True)
        built = time.perf_counter()
        alone = self.alone("A", max(self.given.configurations))
        finetune_model(alone, "baseline", i, learning_rate=rate, force=True)
        return {"build_wall_seconds": built - began, "alone_wall_seconds": time.perf_counter() - built}

    def _composed(self, space: Workspace) -> dict[str, Any]:
        """Validation loss and test metric of every configuration as it comes from the library."""
        found: dict[str, Any] = {"loss": [], "metric": []}
        for model in composed(space, space.finetuned):
            found["loss"].append(mean_loss(model, space.task, space.examples("valid")))
            measured = measure(model, space.base.layout, space.task, space.examples("test"))
            found["metric"].append(measured["metrics"][space.task.main_metric])
        return found

    def metric(self, space: Workspace, folder: Path) -> float:
        """What the model in ``folder`` scores on the test split."""
        done = evaluate(space, [folder], output=space.result_named(folder.name), renew=True)
        return float(done.summary["results"][0]["metrics"][space.task.main_metric])


def run(given: argparse.Namespace) -> None:
    """Everything that was asked for, kept in results.json as it comes."""
    results: dict[str, Any] = {"machine": machine(), "versions": versions(), "task": given.task, "steps": given.steps}
    results |= {"rates": RATES, "seeds": {}, "command": " ".join(["python", *sys.argv])}
    for seed in given.seeds:
        bench, most = SeededRuns(given, seed), max(given.configurations)
        told: dict[str, Any] = results["seeds"].setdefault(str(seed), {"alone": {}, "A": [], "B": []})
        told["sparsity"] = bench.sparsity(most)
        told["alone"]["A"] = bench.baselines("A", most)
        goals = [row["loss"] for row in told["alone"]["A"]["rows"]]
        rate = told["alone"]["A"]["learning_rate"]
        told["joint_steps"] = given.joint_steps or given.steps
        for n in given.configurations:
            for share in given.joint_shares:
                made = bench.joint(n, round(share * told["joint_steps"]), rate)
                made["finish"] = bench.finish(made, goals[:n], rate, SHARES if share == 1.0 else [])
                if share == 1.0 and given.finish:
                    made["finished"] = bench.finished(made, rate)
                if share == 1.0 and n == given.configurations[0]:
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
            if given.original:
                made = bench.original(given.original)
                made["finish"] = bench.finish(made, goals[: given.original], told["alone"]["B"]["learning_rate"])
                told["original"] = [_plain(made)]
                _keep(given, results)


def _shortest(bench: SeededRuns, n: int, goals: list[float], rate: float) -> dict[str, Any]:
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


def main() -> int:
    """Run what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=MODELS, default="t5")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, help="folder [.bench/joint-TASK]")
    parser.add_argument("--configurations", type=int, nargs="+", default=[8, 16, 4, 2, 1])
    parser.add_argument("--classic", type=int, default=8, help="configurations at most with which B is asked; 0: not")
    parser.add_argument("--original", type=int, default=0, help="configurations of the original recipe [none]")
    parser.add_argument("--steps", type=int, default=120, help="of each model fine-tuned whole")
    parser.add_argument("--joint-steps", type=int, help="of all configurations together [as many]")
    parser.add_argument("--joint-shares", type=float, nargs="+", default=[1.0], help="parts of the joint steps to try")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--finish", action="store_true", help="composed models get as many steps of their own too")
    parser.add_argument("--tables", action="store_true", help="only print the tables of results.json again")
    given = parser.parse_args()
    given.output = given.output or Path(f".bench/joint-{given.task}")
    import torch  # noqa: F401  (machine() tells its number of threads)

    if not given.tables:
        run(given)
    tables.show(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
