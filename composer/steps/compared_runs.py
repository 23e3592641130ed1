"""The runs of a comparison: both sides of every configuration, the base model, searches and shorter budgets.

Both sides get the same optimiser, schedule and learning-rate search (once per side, on the middle configuration).
Nothing is chosen by the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files.records import recorded_result
from ..files.stats import curve_of
from ..progress import SILENT, Progress
from ..report.records import SIDES, Budget, Dense, Measured, PrunedRun, Row, Search, Side, Start, Trial
from ..workspace import Kind, Workspace
from .evaluate import evaluate
from .settings import model_settings
from .starting_model import starting_model
from .tune_model import finetune_model, trial


class ComparedRuns:
    """Trains what a comparison needs, or finds it again; every run is kept.

    Args:
        train: run what is missing; otherwise only what is recorded is read, and the rest stays unknown.
        force: fine-tune whole models anew.
    """

    def __init__(
        self, space: Workspace, *, train: bool = True, force: bool = False, progress: Progress = SILENT
    ) -> None:
        self.space, self.train, self.force, self.progress = space, train, force, progress
        self.scheme = space.scheme()
        self.n = len(self.scheme.roots)

    def search(self) -> Search:
        """The same rates tried on both sides, on the middle configuration; the lowest loss wins."""
        rates, middle = self.space.recipe.learning_rates, self.n // 2
        tried = {side: [t for rate in rates if (t := self._trial(side, middle, rate))] for side in SIDES}
        usual = model_settings(self.space).learning_rate
        chosen: dict[str, float | None] = {
            side: min(some, key=lambda t: t.loss).learning_rate if some else usual for side, some in tried.items()
        }
        return Search(
            configuration=middle if rates else None,
            chosen=chosen,
            baseline=tuple(tried["baseline"]),
            composed=tuple(tried["composed"]),
        )

    def _trial(self, side: Side, i: int, rate: float) -> Trial | None:
        """One learning rate on one configuration; the model is kept, as the winner's is that of the whole run."""
        result = self._shorter(side, i, f"search-{side}-{rate:g}", keep=True, learning_rate=rate)
        if not result:
            return None
        loss, seconds, steps = (result[name] for name in ("final_loss", "seconds", "steps"))
        return Trial(loss=loss, seconds=seconds, steps=steps, learning_rate=rate)

    def _shorter(self, side: Side, i: int, name: str, *, keep: bool = False, **changes: Any) -> dict[str, Any] | None:
        """A run with other settings than the recipe's, for its figures; None where it is not there."""
        if not self.train:
            return recorded_result(self.space.stats_named(name))
        start = starting_model(self.space, side, i)
        settings = replace(model_settings(self.space), **changes)
        return trial(self.space, start, settings, name, keep=keep, progress=self.progress)

    def dense(self) -> Dense:
        """The base model untouched, and fine-tuned for the same steps at the baseline's recipe rate."""
        tuned = self._finetuned("dense", None, None)
        untouched = self._measured(self.space.base.folder)
        if untouched and tuned:  # what the run was validated with before its first step
            untouched = untouched.model_copy(update={"loss": tuned.first_loss})
        return Dense(untouched=untouched, finetuned=tuned)

    def row(self, i: int, rates: Mapping[str, float | None]) -> Row:
        """One configuration: where both sides start and end, and the budgets of the composed side."""
        baseline = self._finetuned("baseline", i, rates["baseline"])
        finetuned = self._finetuned("composed", i, rates["composed"])
        budgets = self._budgets(i, rates["composed"], baseline, finetuned) if baseline and finetuned else []
        return Row(
            configuration=i,
            sparsity=self.scheme.sparsity(i, self.space.base.layout),
            pruned=Start(loss=baseline.first_loss if baseline else None),
            composed=Start(loss=finetuned.first_loss if finetuned else None),
            baseline=baseline,
            finetuned=finetuned,
            budgets=tuple(budgets),
            share=min((budget.share for budget in budgets if budget.reached), default=None),
        )

    def _budgets(self, i: int, rate: float | None, baseline: PrunedRun, full: PrunedRun) -> list[Budget]:
        """Shares of the baseline's steps, smallest first, each with its own schedule, up to the first that
        reaches the baseline's final validation loss. A model that starts there already needs no step."""
        start = full.first_loss
        if start is not None and start <= baseline.loss:
            return [Budget(share=0.0, steps=0, loss=start, reached=True, seconds=0.0, curve=((0.0, start),))]
        whole = model_settings(self.space).steps
        budgets: list[Budget] = []
        for share in sorted({*self.space.recipe.budgets, 1.0}):
            steps = max(1, round(share * whole))
            if budgets and budgets[-1].steps == steps:
                continue  # few steps: two shares that come to the same number
            if share == 1:
                name, loss, seconds = f"model-{i}", full.loss, full.seconds
            else:
                name = f"model-{i}-of-{share:g}"
                result = self._shorter("composed", i, name, steps=steps, learning_rate=rate)
                if not result:
                    continue
                loss, seconds = result["final_loss"], result["seconds"]
            reached, curve = loss <= baseline.loss, self._curve(name)
            budgets.append(Budget(share=share, steps=steps, loss=loss, reached=reached, seconds=seconds, curve=curve))
            if reached:
                break
        return budgets

    def _finetuned(self, kind: Kind, i: int | None, rate: float | None) -> PrunedRun | None:
        """A model fine-tuned over the whole budget, and measured."""
        folder = self.space.model_folder(kind, i)
        result: dict[str, Any] | None
        if self.train:
            result = finetune_model(
                self.space, kind, i, learning_rate=rate, force=self.force, progress=self.progress
            ).summary
        else:
            result = recorded_result(folder)
        if not result:
            return None
        measured = self._measured(folder) or Measured()
        return PrunedRun(
            loss=result["final_loss"],
            first_loss=result["first_loss"],
            metric=measured.metric,
            metrics=measured.metrics,
            steps=result["steps"],
            seconds=result["seconds"],
            compose_seconds=result["compose_seconds"],
            learning_rate=result["learning_rate"],
            curve=self._curve(self.space.stats_file(kind, i).stem),
        )

    def _curve(self, name: str) -> tuple[tuple[float, float], ...]:
        """A run's seconds and validation losses; empty where its table is lost."""
        path = self.space.stats_named(name)
        return tuple((seconds, loss) for seconds, loss in curve_of(path)) if path.is_file() else ()

    def _measured(self, folder: Path) -> Measured | None:
        """Test metrics of a model; the loss in tables is always the validation loss."""
        path = self.space.result_file(folder)
        if self.train:
            done = evaluate(self.space, [folder], output=path, renew=True, progress=self.progress)
            result = done.summary["results"][0]
        else:
            result = recorded_result(path)
        if not result:
            return None
        return Measured(metric=result["metrics"][self.space.task.main_metric], metrics=result["metrics"])
