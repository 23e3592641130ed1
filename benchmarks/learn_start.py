"""Movement from repaired blocks against movement from the dense model: the part `start` of `benchmarks/learn.py`.

Heads and neurons, the same share of every layer (`heads`) or what `compose choose --keep-macs 0.3` took (`chosen`). One
side is pruned by `obs` and repaired in closed form, and its masks are learnt on from there (`LearnMasks(start=…)`, the
full share masked from the first step on); the other begins dense, with the schedule. Both have the dense model as
teacher. Loss and accuracy are of all texts that are not trained on; nothing is chosen by them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_hybrid import RULES, train
from transformers import TrainerCallback

import composer
from composer.composing.model_pruner import ModelPruner
from composer.progress import SILENT
from composer.scheme.configurations import Spec
from composer.scheme.rules import read_rules
from composer.tensors.parameters import set_values

if TYPE_CHECKING:
    from learn import Bench

Row = dict[str, Any]
CHOSEN = ((10, 928), (7, 736), (6, 416), (3, 96), (2, 32), (2, 0))
"""Heads of 12 and neurons of 1536 that are left in each layer (docs/choose.md)."""


def rules_of(kind: str) -> Mapping[str, Row]:
    """Path -> rate and granularity."""
    if kind != "chosen":
        return RULES[kind]
    found = {}
    for i, (heads, neurons) in enumerate(CHOSEN):
        found[f"*.layer.{i}.attention"] = {"rate": 1 - heads / 12, "granularity": "head", "cool-down": 0.4}
        found[f"*.layer.{i}.ffn.lin1"] = {"rate": 1 - neurons / 1536, "granularity": "neuron", "cool-down": 0.3}
    return found


def part(bench: Bench) -> None:
    """All rows of one seed."""
    given = bench.given
    dense = bench.row(("dense", "figures"), lambda: figures(bench, bench.model))
    print(f"\nfrom repaired blocks against from the dense model (loss {dense['loss']:.4f}, {dense['metric']:.2%})")
    print("what  begins  rate  steps: loss, accuracy")
    for kind in given.starts:
        for begin, steps in (("dense", given.dense_steps), ("repaired", given.start_steps)):
            for rate in given.start_rates:
                key = ("start", kind, begin, steps, rate, given.teacher_share)
                row = bench.row(key, lambda k=kind, b=begin, n=steps, r=rate: learn(bench, k, b == "repaired", n, r))  # type: ignore[misc]
                seen = "  ".join(f"{n}: {one['loss']:.4f}, {one['metric']:.2%}" for n, one in row["seen"].items())
                print(f"{kind}  {begin}  {rate:g}  {seen}", flush=True)


def learn(bench: Bench, kind: str, repaired: bool, steps: int, rate: float) -> Row:
    """Learn masks; figures at some steps, of the dense side at the end alone, since before it less is masked."""
    folder = bench.given.output / "start" / f"{kind}-{repaired}-{steps}-{rate}"
    model, teacher = bench.space.fresh_model(), bench.space.fresh_model()
    loss: Any = composer.distill_loss(teacher, model, share=bench.given.teacher_share, temperature=2.0)
    start = repaired_model(bench, kind) if repaired else None
    marks = [round(steps * share) for share in ((0, 0.125, 0.25, 0.5, 1) if repaired else (1,))]
    looks = Looks(bench, model, marks)
    callbacks = [composer.LearnMasks(rules_of(kind), start=start), looks]
    seconds = train(bench.space, model, folder, steps, bench.given, bench.seed, callbacks, loss, rate, save=False)
    return {"seen": looks.seen, "step_seconds": seconds / steps}


def repaired_model(bench: Bench, kind: str) -> Any:
    """The folder of a model that is pruned and repaired in closed form."""
    folder, space = bench.given.output / "start" / f"{kind}-repaired", bench.space
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    layout = space.base.layout
    calibration = space.calibrated(bench.model, layout, progress=SILENT)
    pruner = ModelPruner(layout, bench.parameters, calibration, seed=bench.seed)
    ruled = read_rules(rules_of(kind), layout)
    wanted = {one.part.path: Spec(rate=one.amount or 0.0, granularity=str(one.shape)) for one in ruled}
    weights, _ = pruner.prune(wanted, "obs", repair=True)
    model = space.fresh_model()
    set_values(dict(model.named_parameters()), weights)
    space.base.save(model, folder)
    return folder


class Looks(TrainerCallback):
    """Figures before the first step and after some; it stands behind the callback that masks."""

    def __init__(self, bench: Bench, model: Any, marks: list[int], keep: Path | None = None) -> None:
        """Figures go into ``keep`` as they come, where a training that goes on finds those of before."""
        self.bench, self.model, self.marks, self.keep = bench, model, marks, keep
        self.seen: dict[str, Row] = json.loads(keep.read_text()) if keep and keep.is_file() else {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0 and 0 in self.marks:
            self._look(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.marks:
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        self.seen[str(step)] = figures(self.bench, self.model.eval())
        self.model.train()
        if self.keep:
            self.keep.parent.mkdir(parents=True, exist_ok=True)
            self.keep.write_text(json.dumps(self.seen))


def figures(bench: Bench, model: Any) -> Row:
    """Loss and accuracy on all texts that are not trained on."""
    import torch

    space = bench.space
    features, total, right = [*space.examples("valid").features, *space.examples("test").features], 0.0, 0
    with torch.no_grad():
        for i in range(0, len(features), 32):
            batch = space.task.collate(features[i : i + 32])
            outputs = model.eval()(**batch)
            total += float(outputs.loss) * len(batch["labels"])
            right += int((outputs.logits.argmax(-1) == batch["labels"]).sum())
    return {"loss": total / len(features), "metric": right / len(features)}
