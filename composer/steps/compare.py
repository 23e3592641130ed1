"""The comparison: composed models against the honest control, under one budget and one ledger.

Both sides get the same optimiser, schedule and learning-rate search (once per side, on the middle
configuration). Nothing is chosen by the test split.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files.environment import machine, versions
from ..files.jsonfile import digest_of, read_json, write_json
from ..files.records import record, recorded_result
from ..files.stats import curve_of, joint_rows
from ..library.store import Library
from ..progress import SILENT, Progress
from ..report.ledger import ledger_of, verdict_of
from ..scheme.graph import SHARED
from ..workspace import Given, Kind, Workspace
from .evaluate import evaluate
from .outcome import Outcome
from .settings import model_settings
from .starting_model import starting_model
from .tune_model import finetune_model, trial

SIDES: tuple[Kind, Kind] = ("baseline", "composed")


class Comparison:
    """Makes the comparison of one workspace; every run it needs is kept and found again."""

    def __init__(self, space: Workspace, progress: Progress, *, force: bool = False) -> None:
        self.space, self.progress, self.force = space, progress, force
        self.scheme = space.scheme()
        self.n = len(self.scheme.roots)

    def make(self, *, train: bool) -> dict[str, Any]:
        """Train what is missing (or only read what is there) and return the table as plain data."""
        search = self._search(train)
        rates = search["chosen"]
        dense = self._dense(train)
        rows = [self._row(i, rates, train) for i in range(self.n)]
        ledger = ledger_of(self._work(rows, search), dense)
        return {
            "metric": self.space.task.main_metric,
            "rows": rows,
            "dense": dense,
            "search": search,
            "sharing": [
                {"level": s.level, "blocks": s.blocks, "uses": s.uses, "saved": s.saved}
                for s in self.scheme.sharing(self.space.base.layout)
            ],
            "ledger": ledger,
            "verdict": verdict_of(rows, ledger),
            "provenance": self._provenance(),
        }

    def _search(self, train: bool) -> dict[str, Any]:
        """The same rates tried on both sides, on the middle configuration; the lowest loss wins."""
        settings = model_settings(self.space)
        rates, middle = self.space.recipe.learning_rates, self.n // 2
        found: dict[str, Any] = {"configuration": middle if rates else None, "chosen": {}}
        for side in SIDES:
            tried = []
            for rate in rates:
                result: dict[str, Any] | None
                name = f"search-{side}-{rate:g}"
                if train:
                    start = starting_model(self.space, side, middle)
                    tuned = replace(settings, learning_rate=rate)
                    result = trial(self.space, start, tuned, name, keep=True, progress=self.progress)
                else:
                    result = recorded_result(self.space.folder / "stats" / f"{name}.csv")
                if result:
                    shown = {"loss": result["final_loss"], "seconds": result["seconds"], "steps": result["steps"]}
                    tried.append({"learning_rate": rate, **shown})
            found[side] = tried
            best = min(tried, key=lambda t: t["loss"])["learning_rate"] if tried else settings.learning_rate
            found["chosen"][side] = best
        return found

    def _dense(self, train: bool) -> dict[str, Any]:
        """The base model untouched, and fine-tuned for the same steps at the baseline's recipe rate."""
        tuned = self._finetuned("dense", None, None, train)
        untouched = self._measured(self.space.base.folder, train)
        if untouched and tuned:
            untouched["loss"] = tuned.pop("first_loss")
        return {"untouched": untouched, "finetuned": tuned}

    def _row(self, i: int, rates: dict[str, float], train: bool) -> dict[str, Any]:
        baseline = self._finetuned("baseline", i, rates["baseline"], train)
        finetuned = self._finetuned("composed", i, rates["composed"], train)
        budgets = self._budgets(i, rates["composed"], baseline, finetuned, train)
        reached = [b["share"] for b in budgets if b["reached"]]
        return {
            "configuration": i,
            "sparsity": self.scheme.sparsity(i, self.space.base.layout),
            "pruned": {"loss": baseline["first_loss"] if baseline else None},
            "composed": {"loss": finetuned["first_loss"] if finetuned else None},
            "baseline": baseline,
            "finetuned": finetuned,
            "budgets": budgets,
            "share": min(reached) if reached else None,
        }

    def _budgets(
        self, i: int, rate: float, baseline: dict[str, Any] | None, full: dict[str, Any] | None, train: bool
    ) -> list[dict[str, Any]]:
        """Shares of the baseline's steps, smallest first, each with its own schedule, up to the first that
        reaches the baseline's final validation loss. A model that starts there already needs no step."""
        if not baseline or not full:
            return []
        if full["first_loss"] <= baseline["loss"]:
            none = {"share": 0.0, "steps": 0, "loss": full["first_loss"], "reached": True, "seconds": 0.0}
            return [{**none, "curve": [[0.0, full["first_loss"]]]}]
        settings = model_settings(self.space)
        rows: list[dict[str, Any]] = []
        for share in sorted({*self.space.recipe.budgets, 1.0}):
            steps = max(1, round(share * settings.steps))
            if rows and rows[-1]["steps"] == steps:
                continue  # few steps: two shares that come to the same number
            name = f"model-{i}"
            if share == 1:
                result = full
                loss = full["loss"]
            else:
                name = f"model-{i}-of-{share:g}"
                if train:
                    shorter = replace(settings, steps=steps, learning_rate=rate)
                    start = starting_model(self.space, "composed", i)
                    result = trial(self.space, start, shorter, name, progress=self.progress)
                else:
                    result = recorded_result(self.space.folder / "stats" / f"{name}.csv") or {}
                if not result:
                    continue
                loss = result["final_loss"]
            reached = loss <= baseline["loss"]
            rows.append(
                {
                    "share": share,
                    "steps": steps,
                    "loss": loss,
                    "reached": reached,
                    "seconds": result["seconds"],
                    "curve": self._curve(name),
                }
            )
            if reached:
                break
        return rows

    def _finetuned(self, kind: Kind, i: int | None, rate: float | None, train: bool) -> dict[str, Any] | None:
        folder = self.space.model_folder(kind, i)
        result: dict[str, Any] | None
        if train:
            result = finetune_model(
                self.space, kind, i, learning_rate=rate, force=self.force, progress=self.progress
            ).summary
        else:
            result = recorded_result(folder)
        if not result:
            return None
        measured = self._measured(folder, train) or {"metric": None, "metrics": {}}
        return {
            "loss": result["final_loss"],
            "first_loss": result["first_loss"],
            "metric": measured["metric"],
            "metrics": measured["metrics"],
            "steps": result["steps"],
            "seconds": result["seconds"],
            "compose_seconds": result["compose_seconds"],
            "learning_rate": result["learning_rate"],
            "curve": self._curve(self.space.stats_file(kind, i).stem),
        }

    def _curve(self, name: str) -> list[list[float]]:
        """A run's seconds and validation losses; empty where its table is lost."""
        path = self.space.folder / "stats" / f"{name}.csv"
        return curve_of(path) if path.is_file() else []

    def _measured(self, folder: Path, train: bool) -> dict[str, Any] | None:
        """Test metrics of a model; the loss in tables is always the validation loss."""
        path = self.space.result_file(folder)
        if train:
            done = evaluate(self.space, [folder], output=path, renew=True, progress=self.progress)
            result = done.summary["results"][0]
        else:
            result = recorded_result(path)
        if not result:
            return None
        return {
            "metric": result["metrics"][self.space.task.main_metric],
            "metrics": result["metrics"],
            "loss": None,
        }

    def _work(self, rows: list[dict[str, Any]], search: dict[str, Any]) -> dict[str, Any]:
        """The figures that the ledger adds up."""
        library, digest = Library(self.space.finetuned), self.scheme.digest
        pruned, tuned = Library(self.space.pruned).manifest(digest) or {}, library.manifest(digest) or {}
        seconds, addresses = tuned.get("work", {}), tuned.get("addresses", {})
        first = [
            {
                name: seconds.get(name, 0.0)
                for name in [*(n.hash for n in self.scheme.below(self.scheme.root(i))), SHARED]
            }
            for i in range(self.n)
        ]
        leaves = pruned.get("addresses", {})
        same = tuned.get("inputs", {}).get("pruned") == leaves
        return {
            "prune": pruned.get("seconds", 0.0),
            "blocks": first,
            "rows": rows,
            "search": search,
            "joint": self._joint(library.stats(addresses[SHARED])) if SHARED in addresses else None,
            "block_steps": self._block_steps(library, tuned),
            "counts": {"variants": len(self.scheme.at("module")), "blocks": tuned.get("summary", {}).get("blocks")},
            "masks": {"criterion": pruned.get("inputs", {}).get("criterion", {}).get("name"), "same": same},
        }

    def _joint(self, stats: dict[str, Any]) -> dict[str, Any]:
        """What the joint phase took, and every configuration's loss as it went."""
        rows = {(row["step"], row["configuration"]): row["valid_loss"] for row in joint_rows(stats, self.scheme.roots)}
        curve = [
            {
                "step": row["step"],
                "seconds": row["train_seconds"],
                "mean": row["valid_loss"],
                "losses": [rows.get((row["step"], i)) for i in range(self.n)],
            }
            for row in stats["mean"]
        ]
        told = {"seconds": stats["seconds"], "steps": stats["steps"], "curve": curve}
        return {**told, "configurations": len({row["configuration"] for row in stats["joint"]})}

    def _block_steps(self, library: Library, tuned: dict[str, Any]) -> int | None:
        """Steps of all blocks together, each counted for itself; None for a trainer that takes none."""
        if tuned.get("inputs", {}).get("settings", {}).get("trainer") != "distill":
            return None
        rows = [library.stats(address).get("rows") for address in dict.fromkeys(tuned["addresses"].values())]
        return sum(some[-1]["step"] for some in rows if some)

    def _provenance(self) -> dict[str, Any]:
        space = self.space
        digests = {name: space.examples(name).digest for name in ("train", "valid", "test")}
        sources = {f"{name} from": space.examples(name).source for name in ("train", "valid", "test")}
        return {
            "model": space.base.name,
            "fingerprint": space.base.fingerprint,
            "scheme": self.scheme.digest,
            "versions": versions(),
            "machine": machine(),
            "device": space.device,
            "seed": space.recipe.seed,
            "data": {**sources, **digests},
            "recipe": space.resolved(),
            "command": "compose run",
        }


def compare(recipe: Given, *, train: bool = True, force: bool = False, progress: Progress = SILENT) -> Outcome:
    """The table that answers the question, ``report.html``, and the ledger as a picture, ``ledger.png``.

    Args:
        train: run what the table lacks; otherwise only tabulate what is there.
    """
    space = Workspace.of(recipe)
    table = Comparison(space, progress, force=force).make(train=train)
    path, report, picture = comparison_file(space), space.folder / "report.html", space.folder / "ledger.png"
    content = record({"scheme": space.scheme().digest}, result=table)
    before = read_json(path).get("result") if path.is_file() else None
    drawn = report.is_file() and picture.is_file() >= bool(table["ledger"]["growth"])
    fresh = before is None or digest_of(before) != digest_of(table) or not drawn
    if fresh:
        from ..report.page import write_report

        write_json(path, content)
        stats = {p.stem: p for p in sorted((space.folder / "stats").glob("*.csv"))}
        write_report(table, stats, space.scheme(), report, layout=space.base.layout)
        if table["ledger"]["growth"]:
            from ..report.costs import draw

            draw(table["ledger"], picture)
    if train:  # otherwise the work of a run that was killed waits there to be gone on with
        shutil.rmtree(space.folder / ".work", ignore_errors=True)
    return Outcome(report, fresh, table)


def comparison_file(space: Workspace) -> Path:
    return space.folder / "results" / "comparison.json"
