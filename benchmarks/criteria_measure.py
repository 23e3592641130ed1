"""What ``benchmarks/criteria.py`` measures of one model: a criterion at its shapes, pruned and repaired."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import composed, plan
from texts import written

from composer.files.jsonfile import read_json, write_json
from composer.pruning.criteria import CRITERIA
from composer.recipe import load_recipe
from composer.steps.prune import prune
from composer.steps.tune_blocks import finetune_blocks
from composer.tasks.loss import mean_loss
from composer.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from composer.calibration.sample import Calibration
    from composer.progress import Progress
    from composer.scheme.graph import Scheme

RATES = ("30 %", "40 %", "50 %", "60 %", "70 %", "80 %")
PATTERNS = ("2:4", "4:8")
HEADS = ("heads 25 %", "heads 50 %")
FEW = ("50 %", "70 %", "2:4")
"""Shapes of the tables of calibration."""
SHORT = ("50 %", "2:4", "heads 50 %")
SAME = "l2"
"""Of single weights its masks are those of l1: only heads are measured."""


@dataclass(frozen=True)
class Subject:
    """A model with its data; ``generated``: the shapes for which the metric is measured, not the loss alone."""

    model: str
    data: str
    recipe: Mapping[str, Any]
    metric: str | None = None
    generated: tuple[str, ...] = ()
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
        generated=FEW,
    ),
    "distilbert": Subject(
        "models/distilbert-mini-sst2",
        "data/sst2",
        {"calibration_size": 256, "valid_size": 300},
        metric="accuracy",
        generated=(*RATES, *PATTERNS, *HEADS),
    ),
}


class Kept(Workspace):
    """A workspace whose one capture serves all criteria, not only all rates of one scheme."""

    def calibration(self, scheme: Scheme, progress: Progress, *, by_need: bool = False) -> Calibration:
        """The moments of all targets, whatever this scheme touches."""
        if self._calibration is None:
            self._calibration = self.calibrated(self.fresh_model(), self.base.layout, progress=progress)
        return self._calibration

    def forget_calibration(self) -> None:
        """Keep it."""

    def share(self, other: Workspace) -> None:
        """Take over another one's data, which are the same: reading them costs more than a repair."""
        self._examples = other._examples


@dataclass
class Figures:
    """The stored figures of one part of the table: sample -> criterion -> shape -> kind -> metric."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.is_file():
            self.content = read_json(self.path)

    def put(self, figures: Mapping[str, float], *place: str) -> None:
        """Store the figures of one model."""
        rows = self.content
        for name in place[:-1]:
            rows = rows.setdefault(name, {})
        rows[place[-1]] = dict(figures)
        write_json(self.path, self.content)
        print("  ", self.path.stem, *place, {name: round(value, 4) for name, value in figures.items()}, flush=True)

    def lacking(self, sample: str, row: str, shapes: Iterable[str], kinds: Iterable[str]) -> list[str]:
        """Shapes without all their figures."""
        held = self.content.get(sample, {}).get(row, {})
        return [shape for shape in shapes if not set(kinds) <= set(held.get(shape, {}))]


class CalibratedModel:
    """One model with its data and its calibration samples, for as many parts of the table as come."""

    def __init__(self, name: str, shared: Path, output: Path, *, short: bool) -> None:
        self.name, self.shared, self.output, self.short = name, shared, output, short
        self.subject = SUBJECTS[name]
        self.spaces: dict[str, Workspace] = {}

    def space(self, sample: str = "own") -> Workspace:
        """The workspace that is calibrated on this sample; its capture is kept."""
        if sample not in self.spaces:
            data = None
            if sample != "own":
                data = written(self.space(), self.shared, sample, 32 if self.short else 544)
            self.spaces[sample] = self.workspace(sample, data)
        return self.spaces[sample]

    def workspace(self, folder: str, data: str | None = None, **extra: Any) -> Workspace:
        """A new workspace, with the data of the first one unless it has others."""
        subject = self.subject
        options = {
            "model": subject.model if subject.model.startswith(".") else str(self.shared / subject.model),
            "data": data or str(self.shared / subject.data),
            "folder": self.output / folder,
            "trainer": "least_squares",
            "memory": "512MiB",
            "seed": 1,
            **subject.recipe,
            **extra,
        }
        if self.short:
            options |= {"calibration_size": 32, "valid_size": 16, "test_size": 4}
        made = Kept(load_recipe(None, options, file=False))
        if data is None and "own" in self.spaces:
            made.share(self.spaces["own"])
        return made

    def dense(self, into: Figures) -> None:
        """The base model's own figures."""
        if "dense" not in into.content:
            into.put(self.measured(self.space().fresh_model(), FEW[0]), "dense")

    def criterion(self, name: str, sample: str, into: Figures) -> None:
        """A criterion at its shapes, or at two rates where the calibration sample is not the task's own."""
        shapes = self.shapes(name) if sample == "own" else self.some(FEW[:2])
        for heads in (False, True):  # those with heads removed are a scheme of their own
            some = [shape for shape in shapes if (shape in HEADS) == heads]
            if lacking := into.lacking(sample, name, some, ("pruned", "repaired")):
                self.measure(self.space(sample), name, lacking, (sample, name), into)

    def sequential(self, name: str, into: Figures) -> None:
        """Calibrated as published: what comes out of the pruned layers below; a scheme of one configuration each."""
        row = f"{name} sequential"
        for shape in self.some(into.lacking("own", row, FEW, ("pruned",))):
            self.space()  # for its data
            space = self.workspace("sequential", calibration="sequential")
            self.measure(space, name, [shape], ("own", row), into, repair=False)

    def measure(
        self,
        space: Workspace,
        criterion: str,
        shapes: list[str],
        row: tuple[str, str],
        into: Figures,
        *,
        repair: bool = True,
    ) -> None:
        """Prune, repair and measure; the library goes when its figures are stored."""
        shutil.rmtree(space.folder / "modules", ignore_errors=True)  # of a run that was killed
        scheme = plan(space, [self.configuration(criterion, shape) for shape in shapes], name="at", force=True)
        work = {"pruned": prune} | ({"repaired": finetune_blocks} if repair else {})
        for (kind, step), modules in zip(work.items(), (space.pruned, space.finetuned), strict=False):
            began = time.perf_counter()
            step(space, scheme=scheme)
            seconds = time.perf_counter() - began
            for shape, model in zip(shapes, composed(space, modules, scheme), strict=True):
                into.put(self.measured(model, shape), *row, shape, kind)
            print(f"   {into.path.stem}: {kind} {seconds:.0f} s", flush=True)
        shutil.rmtree(space.folder / "modules")

    def measured(self, model: nn.Module, shape: str) -> dict[str, float]:
        """Loss on validation data, perplexity, and the task's metric where it is asked for."""
        space, subject = self.space(), self.subject
        loss = mean_loss(model, space.task, space.examples("valid"))
        found = {"loss": loss} | ({} if subject.metric else {"perplexity": math.exp(min(loss, 20.0))})
        if subject.metric and shape in subject.generated:
            examples = space.examples("test" if subject.metric == "bleu" else "valid")
            found[subject.metric] = space.task.score(model, examples).metrics[subject.metric]
        return found

    def configuration(self, criterion: str, shape: str) -> dict[str, Any]:
        """Heads alone, or all linear targets."""
        kind = "attention" if shape in HEADS else "linear"
        spec = {"criterion": criterion, **spec_of(shape)}
        return {target.path: spec for target in self.space().base.layout.targets if target.kind == kind}

    def shapes(self, criterion: str) -> list[str]:
        """What is measured of a criterion: the shapes that it makes sense with."""
        allowed = CRITERIA.get(criterion).shapes
        found = [*RATES] if allowed & {"unstructured", "global"} and criterion != SAME else []
        found += PATTERNS if "N:M" in allowed and criterion != SAME else ()
        if "head" in allowed:
            groups = next(t.units for t in self.space().base.layout.targets if t.kind == "attention")
            found += [shape for shape in HEADS if round(spec_of(shape)["rate"] * groups)]
        return self.some(found)

    def some(self, shapes: Iterable[str]) -> list[str]:
        """All of them; the short version has one rate and one of everything else."""
        return [shape for shape in shapes if not self.short or shape in SHORT]


def spec_of(shape: str) -> dict[str, Any]:
    """A column of the tables as a configuration says it.

    >>> spec_of("30 %"), spec_of("2:4"), spec_of("heads 25 %")
    ({'rate': 0.3}, {'rate': 0.5, 'granularity': '2:4'}, {'rate': 0.25})
    """
    if ":" in shape:
        kept, of = map(int, shape.split(":"))
        return {"rate": 1 - kept / of, "granularity": shape}
    return {"rate": int(shape.removeprefix("heads ").removesuffix(" %")) / 100}
