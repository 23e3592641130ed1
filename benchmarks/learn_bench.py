"""What the parts of `benchmarks/learn.py` share: a model with its linear targets pruned by single weights, and rows."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from common import timed_row

from composer.composing.model_pruner import ModelPruner
from composer.files.journal import Journal
from composer.progress import SILENT
from composer.recipe import load_recipe
from composer.scheme.configurations import Spec
from composer.tasks.loss import mean_loss
from composer.tensors.parameters import replaced, set_values
from composer.training.model import tune_model
from composer.training.settings import ModelSettings, Part
from composer.workspace import Workspace

Row = dict[str, Any]
Run = tuple[int, float]
"""Steps of a movement run, and the share that is masked at its end."""
MODELS: Mapping[str, Row] = {
    "t5": {"model": "models/t5-mini-multi30k", "data": "data/multi30k"},
    "distilbert": {"model": "models/distilbert-mini-sst2", "data": "data/sst2", "max_source_length": 64},
}


class Bench:
    """One model and seed: what was gathered of it, and the rows that are there."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        self.given, self.seed = given, seed
        self.spaces: dict[Run, Workspace] = {}
        self.pruners: dict[Run, ModelPruner] = {}
        self.run = (given.steps, given.rate)
        self.space = self.space_of(*self.run)
        about = {"base": self.space.base.fingerprint, "batch": given.batch_size, "valid": given.valid, "seed": seed}
        self.journal = Journal(given.output, f"seed-{seed}", about)
        self.model = self.space.fresh_model()
        self.parameters = dict(self.model.named_parameters())
        self.linear = [t for t in self.space.base.layout.targets if t.kind == "linear"]

    def space_of(self, steps: int, rate: float) -> Workspace:
        """The workspace of a movement run of so many steps up to this rate."""
        if (steps, rate) not in self.spaces:
            given = self.given
            named = {k: str(given.shared / v) if k in ("model", "data") else v for k, v in MODELS[given.task].items()}
            run = {"steps": steps, "batch_size": given.batch_size, "learning_rate": given.learning_rate, "rate": rate}
            more = {"calibration_size": given.calibration_size, "seed": self.seed, "folder": str(given.output)}
            more |= {"calibration_lengths": given.calibration_lengths}
            self.spaces[steps, rate] = Workspace(load_recipe(given={**named, **more, "movement": run}, file=False))
        return self.spaces[steps, rate]

    @cached_property
    def valid(self) -> Any:
        """The validation examples that are looked at."""
        return self.space.examples("valid").first(self.given.valid)

    def row(self, key: tuple[Any, ...], make: Callable[[], Row]) -> Row:
        """A row, with its processor seconds; made where it is not there."""
        return timed_row(self.journal, key, make)

    def key(self, run: Run) -> tuple[Any, ...]:
        """What shapes the scores of a movement run, which masks linear targets alone."""
        return (*run, self.given.learning_rate, "linear")

    def calibrated(self, run: Run) -> Any:
        """The calibration sample of the linear targets, and the scores of this run."""
        space = self.space_of(*run)
        layout = space.base.layout.only([target.path for target in self.linear])
        return space.calibrated(self.model, layout, progress=SILENT)

    def pruned(self, criterion: str, rate: float, *, repair: bool, run: Run | None = None) -> Any:
        """Weights and masks; ``run`` is the movement run whose scores are taken [as asked for]."""
        run = run or self.run
        if run not in self.pruners:
            layout = self.space.base.layout
            self.pruners[run] = ModelPruner(layout, self.parameters, self.calibrated(run), seed=self.seed)
        wanted = {target.path: Spec(rate=rate) for target in self.linear}
        return self.pruners[run].prune(wanted, criterion, repair=repair)

    def start(self, criterion: str, rate: float, *, repair: bool, run: Run | None = None) -> Row:
        """Loss before any training; what the masks took is in the row that asks for them first."""
        weights, _ = self.pruned(criterion, rate, repair=repair, run=run)
        with replaced(self.parameters, weights):
            return {"loss": self.loss(self.model)}

    def loss(self, model: Any) -> float:
        """On the validation examples that are looked at."""
        return mean_loss(model, self.space.task, self.valid)

    def tuned(
        self,
        pruned: Any,
        steps: int,
        rate: float,
        train: Part = "all",
        distill: float = 0.0,
        then: Callable[[Any], Row] = lambda _: {},
    ) -> Row:
        """A pruned model after so many steps, its masks held; best of start, middle, end; ``then`` adds to the row."""
        weights, masks = pruned
        space, given = self.space, self.given
        settings = ModelSettings(steps, given.batch_size, rate, 0.1, 0.0, 1.0, 2, self.seed, "fp32", distill, train)
        modules = [p.path for target in self.linear for p in target.projections]
        model, work = space.fresh_model(), given.output / "work"
        shutil.rmtree(work, ignore_errors=True)  # of a killed row: it is made again
        work.mkdir(parents=True)
        set_values(dict(model.named_parameters()), weights)
        data = space.examples("train"), self.valid
        began = time.process_time()
        how: Row = {"work": work, "modules": modules, "answers": space.answers(settings), "progress": SILENT}
        found = tune_model(model, masks, space.task, *data, settings, **how)
        shutil.rmtree(work)
        row = {
            "start": found.first_loss,
            "loss": found.best_loss,
            "step_seconds": found.train_seconds / steps,
            **found.part,
            **then(model),
        }
        return row | {"processor_share": (time.process_time() - began) / max(1e-9, found.train_seconds)}
