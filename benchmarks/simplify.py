"""Simpler parts of DistilBERT on SST-2: what they cost, what they bring, and from where norms must start.

    python benchmarks/simplify.py [--shared ../shared] [--steps 0 150 400] [-o .bench/simplify]

`parts`: `compose simplify` with the norms alone, the activation alone and both, after no step and more; accuracy and
loss on the 872 sentences of the validation file. `starts`: norms alone, from the published start (means of the tokens'
deviations), from the fit of each norm on the base model's own inputs, from the fit in sequence, and from that with
projections refitted; without a step and after `--start-steps`, each also as a mixture with the norm that goes over to
the scale and shift in the first two thirds of the steps. `times`: a pass at batch 1 and 16 of 128 tokens, in turn.
Every row is kept as it comes; a killed run goes on.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from common import timed_row
from torch import Tensor, nn

from composer.calibration.sample import Calibration
from composer.composing.refit import sweep
from composer.evaluation.measure import measure
from composer.files.environment import machine, versions
from composer.files.journal import Journal
from composer.models.modeling_shrunk import NoNorm
from composer.progress import SILENT
from composer.recipe import ModelOptions, Recipe
from composer.simplifying.norms import fitting, norms_of
from composer.steps import simplify as step
from composer.steps.settings import model_settings
from composer.steps.speed import speed
from composer.training import model as training
from composer.workspace import Workspace

Row = dict[str, Any]
PARTS: dict[str, dict[str, str]] = {
    "norms": {"norm": "no-norm"},
    "activation": {"activation": "relu"},
    "both": {"norm": "no-norm", "activation": "relu"},
}
STARTS = ("published", "apart", "in sequence", "refitted")


class Bench:
    """One model, and the rows that are there."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        learning = ModelOptions(
            batch_size=32,
            learning_rate=given.learning_rate,
            steps=max(1, given.start_steps),
            distill=given.teacher_share,
            hidden=given.hidden,
            dropout=given.dropout,
            group_by_length=given.grouped,
            evaluations=4,
        )
        self.recipe = Recipe(
            model=str(given.shared / "models/distilbert-mini-sst2"),
            data=str(given.shared / "data/sst2"),
            max_source_length=64,
            folder=given.output,
            device="cpu",
            finetune=learning,
        )
        self.space = Workspace(self.recipe)
        about = {"base": self.space.base.fingerprint, "learning": learning.model_dump(exclude={"steps"})}
        self.journal = Journal(given.output, "rows", about)

    def row(self, key: tuple[Any, ...], make: Callable[[], Row]) -> Row:
        """A row, with its processor seconds."""
        return timed_row(self.journal, key, make)

    @cached_property
    def base(self) -> nn.Module:
        """The model as it is."""
        return self.space.fresh_model()

    def figures(self, model: nn.Module) -> Row:
        """Loss and accuracy on the whole validation file."""
        found = measure(model, None, self.space.task, self.space.examples("test"))
        return {"loss": found["loss"], "accuracy": found["metrics"]["accuracy"]}

    def simple(self, part: str, steps: int) -> Path:
        """The folder of one row."""
        return Path(self.given.output / "models" / f"{part}-{steps}")

    def simplified(self, part: str, steps: int) -> Row:
        """`compose simplify`."""
        learning = self.recipe.finetune.model_copy(update={"steps": max(1, steps)})
        recipe = self.recipe.model_copy(update={"finetune": learning})
        folder = self.simple(part, steps)
        step.time_on_texts = lambda *_, **__: {}  # all are timed in turn, below
        done = step.simplify(recipe, self.recipe.model or "", **PARTS[part], steps=steps, output=folder, force=True)  # type: ignore[arg-type]
        after = done.summary["after"]
        worst = max(done.summary["norms"].values(), default=0.0)
        return {"loss": after["loss"], "accuracy": after["metrics"]["accuracy"], "worst": worst}

    def started(self, start: str) -> tuple[nn.Module, list[Any]]:
        """A model whose norms are a scale and a shift, begun in one of the ways."""
        space, model = self.space, self.space.fresh_model()
        task, layout, data = space.task, space.base.layout, space.examples("train")
        how: Row = {"size": 512, "seed": 0}
        batches = list(Calibration(self.base, task, data, layout, **how).batches())
        norms = norms_of(model, layout, "it")
        if start in ("published", "apart"):
            put_apart(model, self.base, norms, task, batches, published=start == "published")
            return model, list(norms)
        whole = layout if start == "refitted" else replace(layout, blocks=tuple(layout.at("layer")))
        with fitting(model, self.base, norms, layout) as (further, _):
            sweep(model, self.base, whole, {}, task, data, further=further, **how)
        return model, list(norms)

    def start(self, start: str, steps: int, *, mixed: bool) -> Row:
        """Accuracy from one start, after so many steps."""
        space = self.space
        model, norms = self.started(start)
        if not steps:
            return self.figures(model)
        mixtures = mix(model, self.base, norms) if mixed else []
        settings, work = model_settings(space), self.given.output / "work"
        shutil.rmtree(work, ignore_errors=True)
        given: Any = (model, {}, space.task, space.examples("train"), space.examples("valid"), settings)
        before = training.MaskedHooks
        training.MaskedHooks = hooks_of(mixtures, settings.steps)  # type: ignore[misc]
        try:
            tuned = training.tune_model(*given, work=work, answers=space.answers(settings), progress=SILENT)
        finally:
            training.MaskedHooks = before  # type: ignore[misc]
        for mixture in mixtures:
            mixture.share = 0.0
        return {**self.figures(model), "best_step": tuned.best_step}


def put_apart(model: nn.Module, base: nn.Module, norms: Any, task: Any, batches: list[Any], *, published: bool) -> None:
    """Each norm by what it gets and gives in the base model: ``w/σ̄``, ``b - w μ̄/σ̄``; or least squares."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in norms}
    handles = [
        base.get_submodule(path).register_forward_hook(lambda _, x, y, path=path: seen[path].append((x[0], y)))
        for path in norms
    ]
    with torch.no_grad():
        for batch in batches:
            task.loss(base, batch)
    for handle in handles:
        handle.remove()
    real = [task.real_tokens(batch)["encoder"] for batch in batches]
    for path in norms:
        x, y = (torch.cat([pair[i][r] for pair, r in zip(seen[path], real, strict=True)]).double() for i in (0, 1))
        norm: Any = base.get_submodule(path)
        if published:
            mean, deviation = x.mean(1).mean(), (x.var(1, unbiased=False) + norm.eps).sqrt().mean()
            scale = norm.weight / deviation
            shift = norm.bias - scale * mean
        else:
            scale = ((x - x.mean(0)) * (y - y.mean(0))).mean(0) / x.var(0, unbiased=False)
            shift = y.mean(0) - scale * x.mean(0)
        new = NoNorm(x.shape[1], 2)
        new.weight.data = torch.stack([scale, shift]).detach().float()
        model.set_submodule(path, new)


class Mixture(nn.Module):
    """``share`` of a norm and the rest of a scale and a shift."""

    def __init__(self, norm: nn.Module, simple: nn.Module) -> None:
        super().__init__()
        self.norm, self.simple, self.share = norm, simple, 1.0

    def forward(self, states: Tensor) -> Tensor:
        """(…, width) -> (…, width)."""
        simple: Tensor = self.simple(states)
        return simple if not self.share else self.share * self.norm(states) + (1 - self.share) * simple


def mix(model: nn.Module, base: nn.Module, norms: list[str]) -> list[Mixture]:
    """Put mixtures in place of the scales and shifts."""
    made = [Mixture(copy.deepcopy(base.get_submodule(path)), model.get_submodule(path)) for path in norms]
    for path, mixture in zip(norms, made, strict=True):
        model.set_submodule(path, mixture)
    return made


def hooks_of(mixtures: list[Mixture], steps: int) -> Any:
    """Hooks that let the norms' share fall from 1 to 0; what is measured is without them."""

    class Mixing(training.MaskedHooks):
        def before_step(self, model: nn.Module, step: int) -> None:
            for mixture in mixtures:
                mixture.share = max(0.0, 1 - step / (2 / 3 * steps))

        def measure(self, model: nn.Module, step: int) -> float:
            for mixture in mixtures:
                mixture.share = 0.0
            return super().measure(model, step)

    return Mixing


def main() -> None:
    """All rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/simplify"))
    parser.add_argument(
        "--parts", nargs="+", choices=("parts", "times", "starts"), default=["parts", "times", "starts"]
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 150, 400])
    parser.add_argument("--start-steps", type=int, default=150)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument(
        "--teacher-share", type=float, default=0.5, help="of the model's own former answers in the loss"
    )
    parser.add_argument("--hidden", type=float, default=0.0, help="weight of its former hidden states")
    parser.add_argument("--no-dropout", dest="dropout", action="store_false")
    parser.add_argument("--grouped", action="store_true", help="batches of texts of like length")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(shlex.join(["python", *sys.argv]), machine(), versions(), sep="\n")
    bench = Bench(given)
    dense = bench.row(("dense",), lambda: bench.figures(bench.base))
    print(f"dense: accuracy {dense['accuracy']:.2%}, loss {dense['loss']:.3f}")
    if "parts" in given.parts:
        print("\nparts  steps  accuracy  loss  farthest norm  CPU s")
        for steps in given.steps:
            for part in PARTS:
                row = bench.row((part, steps), lambda p=part, s=steps: bench.simplified(p, s))  # type: ignore[misc]
                told = f"{row['accuracy']:.2%}  {row['loss']:.3f}  {row['worst']:.1%}  {row['cpu']:.0f}"
                print(part, steps, told, sep="  ", flush=True)
    if "times" in given.parts:
        row = bench.row(("times",), lambda: times(bench))
        print("\ntimes as fast as dense, one thread, 128 tokens [95 %]", *row["lines"], sep="\n", flush=True)
    if "starts" in given.parts:
        print("\nnorms from  steps  mixed  accuracy  loss  best step")
        ways = [(0, False), *([(given.start_steps, False), (given.start_steps, True)] if given.start_steps else [])]
        for steps, mixed in ways:
            for start in given.starts:
                row = bench.row(
                    ("start", start, steps, mixed),
                    lambda a=start, s=steps, m=mixed: bench.start(a, s, mixed=m),  # type: ignore[misc]
                )
                told = f"{row['accuracy']:.2%}  {row['loss']:.3f}  {row.get('best_step', 0)}"
                print(start, steps, mixed, told, sep="  ", flush=True)


def times(bench: Bench) -> Row:
    """The dense model and those of no step, in turn: seconds do not depend on what weights say."""
    folders = [bench.simple(part, 0) for part in PARTS]
    measured = speed([bench.recipe.model or "", *folders], batch_sizes=(1, 16), lengths=(128,), memory=False)
    lines = []
    for row in measured.rows:
        if row.faster:
            name, low, high = list(PARTS)[row.entry - 1], row.faster.low, row.faster.high
            lines.append(f"{name}, batch {row.batch_size}: {row.faster.value:.3f} [{low:.3f}, {high:.3f}]")
        else:
            lines.append(f"dense, batch {row.batch_size}: {1e3 * row.processor.median:.1f} processor ms")
    return {"lines": lines}


if __name__ == "__main__":
    main()
