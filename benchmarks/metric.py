"""Moments that know the loss against plain ones: masks by obs, repair and sweep, on real models, without training.

    OMP_NUM_THREADS=1 python benchmarks/metric.py [distilbert] [t5] [--kinds structured single] [--seeds 1 2 3]
        [--shared ../shared] [-o .bench/metric]

Every model is pruned by obs at the same rate everywhere, heads and neurons (structured) or single weights, and repaired
(module and sublayer). Masks and repair each by plain moments and by those that know the loss; then a sweep by either.
The validation loss and the main metric of each (T5: the loss alone). Seeds draw the calibration sample, of the lengths
of the validation split. Rows are kept as they come in the output folder, and a killed run goes on.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from common import timed_row

import composer
from composer.composing.candidates import scored
from composer.files.environment import machine, versions
from composer.files.journal import Journal
from composer.steps.prune import prune
from composer.steps.starting_model import starting_model
from composer.steps.tune_blocks import finetune_blocks
from composer.tasks.loss import mean_loss
from composer.workspace import Workspace

SUBJECTS: dict[str, dict[str, Any]] = {
    "distilbert": {"model": "models/distilbert-mini-sst2", "data": "data/sst2"},
    "t5": {"model": "models/t5-mini-multi30k", "data": "data/multi30k", "max_source_length": 64}
    | {"max_target_length": 64},
}
KINDS: dict[str, dict[str, Any]] = {
    "structured": {"structured": True, "attention": [0.3, 0.5, 0.7], "linear": [0.3, 0.5, 0.7]},
    "single": {"attention_granularity": "unstructured", "attention": [0.5, 0.7], "linear": [0.5, 0.7]},
}
METRICS = ("plain", "loss")
SWEPT = {"plain/plain": METRICS, "loss/plain": ("plain",), "plain/loss": (), "loss/loss": ("loss",)}
"""Masks/repair -> by which moments it is swept too."""


class Measured:
    """One model, one kind of units, one seed: a folder with a scheme, and libraries for each way to make its blocks."""

    def __init__(self, subject: str, kind: str, seed: int, given: argparse.Namespace) -> None:
        self.subject, self.kind, self.seed = subject, kind, seed
        options = dict(SUBJECTS[subject])
        paths = {name: str(given.shared / options.pop(name)) for name in ("model", "data")}
        folder = given.output / f"{subject}-{kind}-{seed}"
        own = {"criterion": "obs", "trainer": "least_squares", "calibration_lengths": given.lengths, "seed": seed}
        self.given = {**paths, **options, **KINDS[kind], **own, "folder": str(folder)}
        if given.short:
            self.given |= {"calibration_size": 32, "valid_size": 32, "train_size": 400}
        self.spaces = {metric: self._space(metric) for metric in METRICS}
        space = self.spaces["plain"]
        self.spaces["loss"]._examples = space._examples  # reading them costs more than a repair
        if not space.conf_prune.is_file():
            composer.generate_config(space)
            composer.generate_scheme(space)
        told = {"base": space.base.fingerprint, "seed": seed, "size": space.recipe.calibration_size}
        self.journal = Journal(given.output, f"{subject}-{kind}", told | {"lengths": given.lengths})

    def _space(self, metric: str) -> Workspace:
        return Workspace(composer.load_recipe(given=self.given | {"metric": metric}, file=False))

    def rows(self) -> Iterator[tuple[str, list[dict[str, float]]]]:
        """Each way, and the figures of every configuration made by it."""
        yield "dense", [self._row("dense", 0, None)]
        for masks, repair in product(METRICS, METRICS):
            way = f"{masks}/{repair}"
            for sweep in ("", *SWEPT[way]):
                name = f"{way} + {sweep} sweep" if sweep else way
                yield name, [self._row(name, i, way, sweep) for i in range(len(KINDS[self.kind]["linear"]))]

    def _row(self, name: str, i: int, way: str | None, sweep: str = "") -> dict[str, float]:
        def make() -> dict[str, Any]:
            if way is None:
                return self._scored(self.spaces["plain"].fresh_model())
            space = self.spaces[sweep or "plain"]
            start = starting_model(space, "composed", i, modules=self._blocks(way), sweep=bool(sweep))
            return self._scored(start.model(space)[0])

        row = timed_row(self.journal, (name, i), make)
        shown = {key: round(value, 4) for key, value in row.items()}
        print("  ", self.subject, self.kind, self.seed, name, i, shown, flush=True)
        return row

    def _scored(self, model: Any) -> dict[str, float]:
        space = self.spaces["plain"]
        if self.subject == "t5":
            return {"loss": mean_loss(model, space.task, space.examples("valid"))}
        return scored(model, space.task, space.examples("valid"))

    def _blocks(self, way: str) -> Path:
        """The library of blocks that were made by these moments; made where it is not there."""
        masks, repair = way.split("/")
        folder = self.spaces["plain"].folder
        pruned, tuned = folder / f"pruned-{masks}", folder / f"tuned-{masks}-{repair}"
        prune(self.spaces[masks], output=pruned)
        finetune_blocks(self.spaces[repair], pruned=pruned, output=tuned)
        return tuned


Found = dict[tuple[str, str], dict[str, list[list[dict[str, float]]]]]
"""Model and kind -> way -> seed -> configuration -> figures."""


def tables(found: Found, seeds: Sequence[int]) -> Iterator[str]:
    """A Markdown table for each model and kind: means over seeds, and of the loss the spread between them."""
    for (subject, kind), ways in found.items():
        rates = KINDS[kind]["linear"]
        yield f"\n{subject}, {kind}, seeds {' '.join(map(str, seeds))}; share removed:\n"
        yield "| masks/repair | " + " | ".join(f"{rate:.0%}" for rate in rates) + " |"
        yield "|---|" + "---|" * len(rates)
        for way, runs in ways.items():
            columns = [_shown([run[i] for run in runs]) for i in range(len(runs[0]))]
            yield f"| {way} | " + " | ".join(columns) + " |"


def _shown(rows: Sequence[dict[str, float]]) -> str:
    losses = [row["loss"] for row in rows]
    spread = f" ± {statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
    metric = "".join(
        f"{100 * statistics.mean(row[name] for row in rows):.1f} / " for name in rows[0] if name not in ("loss", "cpu")
    )
    return f"{metric}{statistics.mean(losses):.4f}{spread}"


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", nargs="*", default=list(SUBJECTS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--lengths", default="valid", choices=["train", "valid"], help="of the calibration sample")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/metric"))
    parser.add_argument("--short", action="store_true", help="shows that it works, measures nothing")
    given = parser.parse_args()
    print("machine:", machine(), "\nversions:", versions(), "\n", flush=True)
    found: Found = {}
    for seed, subject, kind in product(given.seeds, given.subjects, given.kinds):
        ways = found.setdefault((subject, kind), {})
        for way, row in Measured(subject, kind, seed, given).rows():
            ways.setdefault(way, []).append(row)
    print(*tables(found, given.seeds), sep="\n")
    print(f"\nrepeat with: python {' '.join(sys.argv)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
