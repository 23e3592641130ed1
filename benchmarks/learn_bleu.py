"""Translations with 70 % of the linear weights gone: the part `bleu` of `benchmarks/learn.py` (T5 on Multi30K).

`single`: 70 % of every linear target. `units`: heads and neurons, `hybrid`: 32x32 blocks in attentions and neurons, the
same share of every layer. `chosen`: heads and neurons by `compose choose --keep-macs 0.3`. All by `obs` (blocks by
`taylor`) and repaired in closed form, then `--bleu-steps` with the masks held and the dense model's answers as half of
the loss. With `--small` they are shrunk first (not `single`) and learn as by `compose finetune SHRUNK -m BASE`, from
`--teacher-share` of the dense model's answers and its hidden states (`--hidden-weights`). BLEU is of the first
`--bleu-test` test sentences, greedy; nothing is chosen by it (what learnt is best by validation loss).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from learn_back import left_of
from learn_hybrid import times

import composer
from composer.composing.model_pruner import ModelPruner
from composer.models.folder import BaseModel
from composer.progress import SILENT
from composer.recipe import ModelOptions
from composer.scheme.configurations import Spec, read_configurations, resolve
from composer.steps.choose import choose
from composer.steps.tune_folder import finetune_folder
from composer.tasks.loss import mean_loss
from composer.tensors.masks import zeros_per_target
from composer.tensors.parameters import replaced

if TYPE_CHECKING:
    from learn_bench import Bench, Row

GONE, HEADS, NEURONS = 0.7, 0.75, 0.663
"""Of all; of heads and of neurons where single weights stay: six of eight heads, and what is left to reach 70 %."""


def part(bench: Bench) -> None:
    """All rows of one seed."""
    given = bench.given
    dense = bench.row(("bleu", "dense", given.bleu_test), lambda: figures(bench, bench.model))
    shown = f"loss {dense['loss']:.4f}, BLEU {dense['bleu']:.2f}"
    print(f"\n{GONE:.0%} gone, {given.bleu_test} test sentences; dense: {shown}")
    print("what  gone  closed forms: loss, BLEU  steps at rate: loss, BLEU, below dense")
    for kind in given.bleu:
        key = (kind, given.calibration_size, given.calibration_lengths, given.bleu_test)
        pruned = cache(partial(_pruned, bench, kind))
        closed = bench.row(("bleu", "closed", *key), lambda k=kind, p=pruned: _closed(bench, k, *p()))  # type: ignore[misc]
        shown = f"{closed['loss']:.4f}, {closed['bleu']:.2f}"
        print(f"{kind}  {closed['gone']:.1%}, {closed['left']:.1%} left in shapes  {shown}", flush=True)
        for rate in given.bleu_rates:
            if given.small and kind != "single":
                _show_small(bench, kind, rate, key, dense["bleu"])
                continue
            row = bench.row(
                ("bleu", "tuned", given.bleu_steps, rate, *key),
                lambda p=pruned, r=rate: bench.tuned(  # type: ignore[misc]
                    p(), given.bleu_steps, r, distill=0.5, then=lambda model: {"bleu": figures(bench, model)["bleu"]}
                ),
            )
            told = f"{row['loss']:.4f}, {row['bleu']:.2f}, {dense['bleu'] - row['bleu']:.2f}"
            print(f"    {given.bleu_steps} at {rate:g}: {told}; {row['step_seconds']:.2f} s a step", flush=True)


def _assigned(bench: Bench, kind: str) -> Mapping[str, float | Spec]:
    layout = bench.space.base.layout
    if kind == "chosen":
        folder = bench.given.output / f"choice-{bench.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        wish = {"keep_macs": [1 - GONE], "calibration_lengths": "valid", "folder": str(folder)}
        path = folder / "conf.json"
        choose(bench.space.recipe.model_copy(update=wish), output=path, force=True)
        return resolve(read_configurations(path), layout)[0]
    if kind == "single":
        return {target.path: Spec(rate=GONE, granularity="unstructured") for target in layout.targets}
    attention = Spec(rate=GONE, granularity="32x32", criterion="taylor")
    heads = {target.path: Spec(rate=HEADS) for target in layout.targets if target.kind == "attention"}
    neurons = {
        target.path: Spec(rate=GONE if kind == "hybrid" else NEURONS, granularity="neuron")
        for target in layout.targets
        if layout.feed_forward(target.path)
    }
    feeding = layout.in_feed_forwards(target.path for target in layout.targets)
    blocks = {target.path: attention for target in layout.targets if target.path not in feeding}
    return {**(blocks if kind == "hybrid" else heads), **neurons}


def _pruned(bench: Bench, kind: str) -> Any:
    space = bench.space
    calibration = space.calibrated(bench.model, space.base.layout, progress=SILENT)
    pruner = ModelPruner(space.base.layout, bench.parameters, calibration, seed=bench.seed)
    return pruner.prune(_assigned(bench, kind), "obs", repair=True)


def _closed(bench: Bench, kind: str, weights: Any, masks: Any) -> Row:
    space, left = bench.space, 1.0
    with replaced(bench.parameters, weights):
        found = figures(bench, bench.model)
        zeros = sum(zeros for zeros, _ in zeros_per_target(bench.model, space.base.layout).values())
        if kind != "single":
            folder = bench.given.output / "bleu" / kind
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            space.base.save(bench.model, folder)
            composer.shrink(folder, folder / "shrunk", force=True)
            left = left_of(BaseModel(folder / "shrunk").layout, bench)
    return {**found, "gone": zeros / sum(target.parameters for target in space.base.layout.targets), "left": left}


def _show_small(bench: Bench, kind: str, rate: float, key: Any, dense: float) -> None:
    """A shrunk model that learns, and how many times as fast it is as the dense one."""
    given = bench.given
    for hidden in given.hidden_weights:
        how = (given.bleu_steps, rate, given.teacher_share, hidden, given.dropout, given.grouped)
        row = bench.row(("bleu", "small", *how, *key), partial(_small, bench, kind, rate, hidden))
        told = f"{row['loss']:.4f}, {row['bleu']:.2f}, {dense - row['bleu']:.2f}"
        print(
            f"    shrunk, {given.bleu_steps} at {rate:g}, hidden {hidden:g}: {told}; {row['step_seconds']:.2f} s a step"
        )
        print(f"    {row['text']} times as fast, {row['macs']:.2f} by multiplications", flush=True)


def _small(bench: Bench, kind: str, rate: float, hidden: float) -> Row:
    given, start = bench.given, bench.given.output / "bleu" / kind / "shrunk"
    if not start.is_dir():
        _closed(bench, kind, *_pruned(bench, kind))
    learning = ModelOptions(
        steps=given.bleu_steps,
        batch_size=given.batch_size,
        learning_rate=rate,
        distill=given.teacher_share,
        hidden=hidden,
        dropout=given.dropout,
        group_by_length=given.grouped,
    )
    recipe = bench.space.recipe.model_copy(update={"finetune": learning, "folder": start.parent})
    learnt = start.parent / f"learnt-{given.bleu_steps}-{rate:g}-{hidden:g}"
    done = finetune_folder(recipe, start, output=learnt)
    found, speed = figures(bench, BaseModel(learnt).load()), times(bench, start)
    return {**found, **speed, "step_seconds": done.summary["seconds"] / given.bleu_steps}


def figures(bench: Bench, model: Any) -> Row:
    """Validation loss and BLEU."""
    space = bench.space
    scored = space.task.score(model.eval(), space.examples("test").first(bench.given.bleu_test))
    return {"loss": mean_loss(model, space.task, bench.valid), "bleu": scored.metrics["bleu"]}
