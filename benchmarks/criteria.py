"""Every criterion on real models: rates, n:m and heads, repaired and not, and calibration data.

    python benchmarks/criteria.py [--only llama t5 distilbert] [--shared ../shared] [-o .bench/criteria] [--short]

A small Llama trained on WikiText-2 (``benchmarks/language_model.py`` makes it: perplexity), a T5 on Multi30K (loss,
BLEU) and a DistilBERT on SST-2 (loss, accuracy). No training step is taken. Each figure is stored in results.json as
soon as it is measured, a killed run goes on; Markdown tables and a picture are made of what is there. What says most
comes first: of all models, then calibration, then the repairs that fill the table.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import criteria_tables
import torch
from common import composed, plan
from texts import written

from composer import steps
from composer.criteria import CRITERIA
from composer.jsonfile import read_json, write_json
from composer.provenance import machine, versions
from composer.recipe import load_recipe
from composer.tasks.evaluation import mean_loss
from composer.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from composer.calibration import Calibration
    from composer.progress import Progress
    from composer.scheme import Scheme

RATES = ("30 %", "40 %", "50 %", "60 %", "70 %", "80 %")
PATTERNS = ("2:4", "4:8")
HEADS = ("heads 25 %", "heads 50 %")
SEQUENTIAL = ("wanda", "sparsegpt")
ELSEWHERE = ("wanda", "sparsegpt", "obs")
"""Criteria of the table of calibration data."""
FIRST = ("50 %", "70 %", "2:4", *HEADS)
"""Shapes whose repair is measured before the others'; of wide models those of :data:`HEADS` alone."""
ORDER = ("l1", "wanda", "sparsegpt", "obs", "global_l1", "taylor", "random", "l2")
SAME = "l2"
"""Of single weights its masks are those of l1: only heads are measured."""


@dataclass(frozen=True)
class Subject:
    """A model with its data.

    ``generated``: the shapes for which the metric is measured, not the loss alone; ``repaired``: those whose repair
    is measured before the others'.
    """

    model: str
    data: str
    recipe: Mapping[str, Any]
    metric: str | None = None
    metric_size: int = 300
    generated: tuple[str, ...] = ()
    repaired: tuple[str, ...] = FIRST
    elsewhere: tuple[str, ...] = ("c4", "wikitext")


SUBJECTS = {
    "llama": Subject(
        ".bench/wikitext-llama",
        "data/wikitext-2",
        {"max_source_length": 128, "calibration_size": 128, "valid_size": 128},
        elsewhere=("c4", "multi30k"),
    ),
    "t5": Subject(
        "models/t5-mini-multi30k",
        "data/multi30k",
        {"max_source_length": 64, "max_target_length": 64, "valid_size": 256, "test_size": 100},
        metric="bleu",
        generated=("50 %", "70 %", "2:4"),
    ),
    "distilbert": Subject(
        "models/distilbert-mini-sst2",
        "data/sst2",
        {"calibration_size": 256, "valid_size": 300},
        metric="accuracy",
        repaired=HEADS,
        generated=(*RATES, *PATTERNS, *HEADS),
    ),
}


class Kept(Workspace):
    """A workspace whose one capture serves all criteria, not only all rates of one scheme."""

    def calibration(self, plan: Scheme, progress: Progress, *, by_need: bool = False) -> Calibration:
        """The moments of all targets, whatever this plan touches."""
        if self._calibration is None:
            self._calibration = self.calibrated(self.fresh_model(), self.base.layout, progress=progress)
        return self._calibration

    def forget_calibration(self) -> None:
        """Keep it."""

    def share(self, other: Workspace) -> None:
        """Take over another one's data, which are the same: reading them costs more than a repair."""
        self._examples = other._examples


@dataclass
class Results:
    """The stored figures: subject -> sample -> criterion -> shape -> ``pruned`` and ``repaired`` -> figures."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.is_file():
            self.content = read_json(self.path)
        self.content |= {"machine": machine(), "versions": versions()}

    def rows(self, *place: str) -> dict[str, Any]:
        """The mapping at a place, made where it is not there."""
        found = self.content.setdefault("subjects", {})
        for name in place:
            found = found.setdefault(name, {})
        return found

    def put(self, figures: dict[str, float], *place: str) -> None:
        """Store the figures of one model."""
        self.rows(*place[:-1])[place[-1]] = figures
        write_json(self.path, self.content)
        print("  ", *place, {name: round(value, 4) for name, value in figures.items()}, flush=True)


class Bench:
    """All measurements of one subject."""

    def __init__(self, name: str, given: argparse.Namespace, results: Results) -> None:
        self.name, self.given, self.results = name, given, results
        self.subject = SUBJECTS[name]
        self.own = self.workspace("own")
        self.layout = self.own.base.layout

    def workspace(self, sample: str, data: str | None = None, **extra: Any) -> Workspace:
        """A workspace that is calibrated on this sample."""
        subject, shared = self.subject, self.given.shared
        model = subject.model if subject.model.startswith(".") else str(shared / subject.model)
        options = {
            "model": model,
            "data": data or str(shared / subject.data),
            "folder": self.given.output / self.name / sample,
            "trainer": "least_squares",
            "memory": "512MiB",
            "seed": 1,
            **subject.recipe,
            **extra,
        }
        if self.given.short:
            options |= {"calibration_size": 32, "valid_size": 16, "test_size": 4}
        space = Kept(load_recipe(None, options, file=False))
        if data is None and sample != "own":
            space.share(self.own)
        return space

    def criteria(self) -> None:
        """Every criterion and shape pruned, and the first ones repaired."""
        if "dense" not in self.results.rows(self.name):
            self.results.put(self.figures(self.own.fresh_model(), "50 %"), self.name, "dense")
        for criterion in sorted(CRITERIA.names(), key=(*ORDER, *CRITERIA.names()).index):
            self.series(self.own, "own", criterion, self.shapes(criterion), self.subject.repaired)

    def samples(self) -> None:
        """Calibration as published, and on text from elsewhere."""
        for sample in self.subject.elsewhere:
            wanted = self.some(("50 %", "70 %"))
            repaired = [shape for shape in self.subject.repaired if shape == "70 %"]
            if not any(self.lacking(sample, criterion, wanted, repaired) for criterion in ELSEWHERE):
                continue
            data = written(self.own, self.given.shared, sample, 32 if self.given.short else 544)
            space = self.workspace(sample, data)
            for criterion in ELSEWHERE:
                self.series(space, sample, criterion, wanted, repaired)
        self.sequential(FIRST, ())

    def first_repairs(self) -> None:
        """The first repairs, where they had to wait."""
        self.repairs(FIRST)

    def rest(self) -> None:
        """All other repairs, and calibration as published at all rates."""
        self.repairs((*RATES, *PATTERNS, *HEADS))
        self.sequential((*RATES, *PATTERNS), (*RATES, *PATTERNS))

    def repairs(self, repaired: Sequence[str]) -> None:
        """Repaired figures of these shapes, of all criteria."""
        for criterion in sorted(CRITERIA.names(), key=(*ORDER, *CRITERIA.names()).index):
            self.series(self.own, "own", criterion, self.shapes(criterion), repaired)

    def sequential(self, shapes: Sequence[str], repaired: Sequence[str]) -> None:
        """Those criteria that were published so; a scheme of one configuration each."""
        for criterion in SEQUENTIAL:
            for shape in self.some(shape for shape in shapes if shape not in HEADS):
                if self.lacking("own", f"{criterion} sequential", [shape], repaired):
                    folder = f"sequential-{criterion}-{shape.replace(':', '-').rstrip(' %')}"
                    space = self.workspace(folder, calibration="sequential")
                    self.series(space, "own", criterion, [shape], repaired, f"{criterion} sequential")

    def series(
        self, space: Workspace, sample: str, criterion: str, shapes: list[str], repaired: Sequence[str], name: str = ""
    ) -> None:
        """One criterion at some shapes: those with heads removed are a scheme of their own."""
        for heads in (False, True):
            some = [shape for shape in shapes if (shape in HEADS) == heads]
            if lacking := self.lacking(sample, name or criterion, some, repaired):
                self.measure(space, (self.name, sample, name or criterion), criterion, lacking, repaired)

    def measure(
        self, space: Workspace, place: tuple[str, ...], criterion: str, shapes: list[str], repaired: Sequence[str]
    ) -> None:
        """Prune, repair and measure; the library goes when its figures are stored."""
        scheme = plan(space, [self.configuration(criterion, shape) for shape in shapes], name="at", force=True)
        began = time.perf_counter()
        steps.prune(space, scheme=scheme)
        self.store(space, place, shapes, "pruned", scheme)
        pruned, began = time.perf_counter() - began, time.perf_counter()
        fixed = [shape for shape in shapes if shape in repaired]
        if fixed:
            part = scheme
            if fixed != shapes:
                chosen = [self.configuration(criterion, shape) for shape in fixed]
                part = plan(space, chosen, name="at-repaired", force=True)
                steps.prune(space, scheme=part)
            steps.finetune_blocks(space, scheme=part)
            self.store(space, place, fixed, "repaired", part)
        print(f"   {place[-1]}: pruned {pruned:.0f} s, repaired {time.perf_counter() - began:.0f} s", flush=True)
        shutil.rmtree(space.folder / "modules")

    def store(self, space: Workspace, place: tuple[str, ...], shapes: list[str], kind: str, scheme: Path) -> None:
        """Figures of all models of a scheme."""
        modules = {"pruned": space.pruned, "repaired": space.finetuned}[kind]
        for shape, model in zip(shapes, composed(space, modules, scheme), strict=True):
            if kind not in self.results.rows(*place, shape):
                self.results.put(self.figures(model, shape), *place, shape, kind)

    def figures(self, model: nn.Module, shape: str) -> dict[str, float]:
        """Loss on validation data, perplexity, and the task's metric where it is asked for."""
        space, subject = self.own, self.subject
        loss = mean_loss(model, space.task, space.examples("valid"))
        found = {"loss": loss} | ({} if subject.metric else {"perplexity": math.exp(min(loss, 20.0))})
        if subject.metric and shape in subject.generated:
            split = "test" if subject.metric == "bleu" else "valid"
            found[subject.metric] = space.task.score(model, space.examples(split)).metrics[subject.metric]
        return found

    def configuration(self, criterion: str, shape: str) -> dict[str, Any]:
        """Heads alone, or all linear targets."""
        kind = "attention" if shape in HEADS else "linear"
        spec = {"criterion": criterion, **spec_of(shape)}
        return {target.path: spec for target in self.layout.targets if target.kind == kind}

    def shapes(self, criterion: str) -> list[str]:
        """What is measured of a criterion: the shapes that it makes sense with."""
        allowed = CRITERIA.get(criterion).shapes
        found = [*RATES] if allowed & {"unstructured", "global"} and criterion != SAME else []
        found += PATTERNS if "N:M" in allowed and criterion != SAME else ()
        if "head" in allowed:
            groups = next(t.units for t in self.layout.targets if t.kind == "attention")
            found += [shape for shape in HEADS if round(spec_of(shape)["rate"] * groups)]
        return self.some(found)

    def some(self, shapes: Iterable[str]) -> list[str]:
        """All of them; the short version has one rate and one of everything else."""
        return [s for s in shapes if not self.given.short or s in ("50 %", "2:4", "heads 50 %")]

    def lacking(self, sample: str, name: str, shapes: Iterable[str], repaired: Sequence[str]) -> list[str]:
        """Shapes without all their figures."""
        held = self.results.rows(self.name, sample, name)
        wanted = {s: {"pruned"} | ({"repaired"} if s in repaired else set()) for s in shapes}
        return [shape for shape, kinds in wanted.items() if not kinds <= set(held.get(shape, {}))]


def spec_of(shape: str) -> dict[str, Any]:
    """A column of the tables as a configuration says it.

    >>> spec_of("30 %"), spec_of("2:4"), spec_of("heads 25 %")
    ({'rate': 0.3}, {'rate': 0.5, 'granularity': '2:4'}, {'rate': 0.25})
    """
    if ":" in shape:
        kept, of = map(int, shape.split(":"))
        return {"rate": 1 - kept / of, "granularity": shape}
    return {"rate": int(shape.removeprefix("heads ").removesuffix(" %")) / 100}


def missing(given: argparse.Namespace) -> Iterator[str]:
    """What has to be made before."""
    for name in given.only:
        folder = SUBJECTS[name].model
        if folder.startswith(".") and not (Path(folder) / "model.safetensors").is_file():
            yield f"{folder}: not there; run python benchmarks/language_model.py"


def main() -> int:
    """Measure the subjects that are asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/criteria"))
    parser.add_argument("--only", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--short", action="store_true", help="tiny samples and one rate, to see that all of it runs")
    given = parser.parse_args()
    if problems := list(missing(given)):
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    print("machine:", machine(), f"threads {torch.get_num_threads()}", "\nversions:", versions(), "\n", flush=True)
    results = Results(given.output / "results.json")
    benches = [Bench(name, given, results) for name in given.only]
    for phase in (Bench.criteria, Bench.samples, Bench.first_repairs, Bench.rest):
        for bench in benches:
            began = time.perf_counter()
            phase(bench)
            print(f"{bench.name}, {phase.__name__}: {time.perf_counter() - began:.0f} s\n", flush=True)
    print(criteria_tables.markdown(results.content))
    criteria_tables.picture(results.content, given.output / "criteria.png")
    print(f"\nrepeat with: python {' '.join(sys.argv)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
