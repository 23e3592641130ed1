"""The runs of a comparison: both sides of every configuration, the base model, searches and shorter budgets.

Both sides get the same optimiser, schedule and learning rates to choose from (once per side, on one configuration).
A composed model that is there already, at or below its baseline's loss, is trained no further, unless the recipe says
``finish: all``. Nothing is chosen by the test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..files.records import recorded_result
from ..files.stats import curve_of
from ..progress import SILENT, Progress
from ..report.records import Budget, Dense, Measured, PrunedRun, Row, Search, Side, Start, Trial
from ..workspace import Kind, Workspace
from .build_model import build_model
from .evaluate import evaluate
from .settings import model_settings
from .start_loss import Composed, start_loss
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
        self._baselines: dict[int, PrunedRun | None] = {}

    def search(self) -> Search:
        """The same rates tried on both sides, on the middle configuration; the lowest loss wins.

        On the composed side it is the middle one of those that need training by themselves.
        """
        rates, middle = self.space.recipe.learning_rates, self.n // 2
        baseline = self._tried("baseline", middle)
        chosen = self._lowest(baseline)
        left = [i for i in range(self.n) if not self._is_there(i, chosen)] if rates else []
        finished = left[len(left) // 2] if left else None
        composed = () if finished is None else self._tried("composed", finished)
        return Search(
            configuration=middle if rates else None,
            finished=finished,
            chosen={"baseline": chosen, "composed": self._lowest(composed)},
            baseline=baseline,
            composed=composed,
        )

    def _tried(self, side: Side, i: int) -> tuple[Trial, ...]:
        return tuple(t for rate in self.space.recipe.learning_rates if (t := self._trial(side, i, rate)))

    def _lowest(self, tried: Sequence[Trial]) -> float:
        """The rate with the lowest loss; the recipe's where none was tried."""
        usual = model_settings(self.space).learning_rate
        return min(tried, key=lambda trial: trial.loss).learning_rate if tried else usual

    def _is_there(self, i: int, rate: float | None) -> bool:
        """Whether a composed model is known to be at or below its baseline's loss without training of its own."""
        baseline = self._baseline(i, rate)
        if baseline is None or self.space.recipe.finish == "all":
            return False
        start = self._start(i)
        return start is not None and start.loss <= baseline.loss

    def _start(self, i: int) -> Composed | None:
        return start_loss(self.space, i, measure=self.train, progress=self.progress)

    def _baseline(self, i: int, rate: float | None) -> PrunedRun | None:
        if i not in self._baselines:
            self._baselines[i] = self._finetuned("baseline", i, rate)
        return self._baselines[i]

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
        untouched = self._measured(self.space.base.name)
        if untouched and tuned:  # what the run was validated with before its first step
            untouched = untouched.model_copy(update={"loss": tuned.first_loss})
        return Dense(untouched=untouched, finetuned=tuned)

    def row(self, i: int, rates: Mapping[str, float | None]) -> Row:
        """One configuration: where both sides start and end, and the budgets of the composed side."""
        baseline = self._baseline(i, rates["baseline"])
        untrained = self._untrained(i) if self._is_there(i, rates["baseline"]) else None
        finetuned = untrained or self._finetuned("composed", i, rates["composed"])
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

    def _untrained(self, i: int) -> PrunedRun | None:
        """A composed model as it comes from the library, measured: a run of no steps."""
        start = self._start(i)
        if start is None:
            return None
        folder = self.space.built_model(i)
        if self.train:
            build_model(self.space, i, force=self.force, progress=self.progress)
        measured = self._measured(folder) or Measured()
        return PrunedRun(
            loss=start.loss,
            first_loss=start.loss,
            metric=measured.metric,
            metrics=measured.metrics,
            steps=0,
            seconds=0.0,
            compose_seconds=start.seconds,
            curve=((0.0, start.loss),),
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

    def _measured(self, name: str | Path) -> Measured | None:
        """Test metrics of a model; the loss in tables is always the validation loss."""
        is_base = name == self.space.base.name
        path = self.space.result_named("base" if is_base else Path(name).name)
        if self.train:
            done = evaluate(self.space, [name], output=path, renew=True, progress=self.progress)
            result = done.summary["results"][0]
        else:
            result = recorded_result(path)
        if not result:
            return None
        return Measured(metric=result["metrics"][self.space.task.main_metric], metrics=result["metrics"])
