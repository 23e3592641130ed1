"""Movement from repaired blocks against movement from the dense model: the part `start` of `benchmarks/learn.py`.

T5: single weights of every linear target (`single`, the share `--rate`). DistilBERT: heads and neurons, the same share
of every layer (`heads`) or what `compose choose --keep-macs 0.3` took (`chosen`). One side is pruned by `obs` and
repaired in closed form, and its masks are learnt on from there (`LearnMasks(start=…)`, the full share masked from the
first step on); the other begins dense, with the schedule, and is looked at when it ends, since before that less is
masked: each of `--dense-steps` is a training of its own. Both have the dense model as teacher. Figures are of
validation pairs (T5, `--valid`), or of all texts that are not trained on; nothing is chosen by them. A killed training
goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
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
    from learn_bench import Bench, Row

STARTS: Mapping[str, tuple[str, ...]] = {"t5": ("single",), "distilbert": ("heads", "chosen")}
"""What is pruned, by model."""
CHOSEN = ((10, 928), (7, 736), (6, 416), (3, 96), (2, 32), (2, 0))
"""Heads of 12 and neurons of 1536 that are left in each layer (docs/choose.md)."""
LOOKED = (0, 0.125, 0.25, 0.5, 1)
"""Shares of the steps after which the repaired side is looked at."""


def rules_of(bench: Bench, kind: str) -> Mapping[str, Row]:
    """Path -> rate and granularity."""
    if kind == "single":
        how = {"rate": bench.given.rate, "granularity": "unstructured"}
        return {target.path: how for target in bench.linear}
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
    print(f"\nfrom repaired blocks against from the dense model ({shown(dense)})")
    for kind in given.starts or STARTS[given.task]:
        for rate in given.start_rates:
            print("what  begins  rate  steps: figures; seconds a step")
            rows: dict[str, list[Mapping[str, Row]]] = {"dense": [], "repaired": []}
            for begins, lengths in (("repaired", given.start_steps), ("dense", given.dense_steps)):
                for steps in lengths:
                    key = _key(bench, kind, begins, steps, rate)
                    row = bench.row(key, partial(learn, bench, kind, begins == "repaired", steps, rate))
                    rows[begins].append(row["seen"])
                    seen = "  ".join(f"{n}: {shown(one)}" for n, one in row["seen"].items())
                    print(f"{kind}  {begins}  {rate:g}  {seen}; {row['step_seconds']:.2f}", flush=True)
            _compared(rows["dense"], rows["repaired"])


def _key(bench: Bench, kind: str, begins: str, steps: int, rate: float) -> tuple[Any, ...]:
    given = bench.given
    shape = (given.rate,) if kind == "single" else ()
    sample = (given.calibration_size, given.calibration_lengths) if begins == "repaired" else ()
    return ("start", kind, *shape, begins, steps, rate, given.teacher_share, *sample)


def _compared(dense: list[Mapping[str, Row]], repaired: list[Mapping[str, Row]]) -> None:
    """After how many steps from repaired blocks the loss is at or below that of each training from the dense model."""
    losses = {int(n): one["loss"] for seen in dense for n, one in seen.items()}
    ours = [(int(n), one["loss"]) for seen in repaired for n, one in seen.items()]
    for steps, loss in losses.items():
        enough = [n for n, own in ours if own <= loss]
        least = f"after {min(enough)} ({min(enough) / steps:.0%})" if enough else "never"
        print(f"loss of {steps} steps from the dense model ({loss:.4f}): from repaired blocks {least}")


def learn(bench: Bench, kind: str, repaired: bool, steps: int, rate: float) -> Row:
    """Learn masks; figures at some steps, of the dense side at the end alone, since before it less is masked."""
    folder = bench.given.output / "start" / f"{kind}-{repaired}-{steps}-{rate}-{bench.seed}"
    model, teacher = bench.space.fresh_model(), bench.space.fresh_model()
    loss: Any = composer.distill_loss(teacher, model, share=bench.given.teacher_share, temperature=2.0)
    start = repaired_model(bench, kind) if repaired else None
    marks = [round(steps * share) for share in (LOOKED if repaired else (1,))]
    looks = Looks(bench, model, marks, folder.with_suffix(".json"))
    callbacks = [composer.LearnMasks(rules_of(bench, kind), start=start), looks]
    seconds = train(bench.space, model, folder, steps, bench.given, bench.seed, callbacks, loss, rate)
    return {"seen": looks.seen, "step_seconds": seconds / steps}


def repaired_model(bench: Bench, kind: str) -> Path:
    """The folder of a model that is pruned and repaired in closed form."""
    folder, space = bench.given.output / "start" / f"{kind}-repaired", bench.space
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    layout = space.base.layout
    ruled = read_rules(rules_of(bench, kind), layout)
    wanted = {one.part.path: Spec(rate=one.amount or 0.0, granularity=str(one.shape)) for one in ruled}
    calibration = space.calibrated(bench.model, layout, progress=SILENT)
    pruner = ModelPruner(layout, bench.parameters, calibration, seed=bench.seed)
    weights, _ = pruner.prune(wanted, "obs", repair=True)
    model = space.fresh_model()
    set_values(dict(model.named_parameters()), weights)
    space.base.save(model, folder)
    return folder


class Looks(TrainerCallback):
    """Figures before the first step and after some; it stands behind the callback that masks."""

    def __init__(self, bench: Bench, model: Any, marks: list[int], keep: Path) -> None:
        """Figures go into ``keep`` as they come, where a training that goes on finds those of before."""
        self.bench, self.model, self.marks, self.keep = bench, model, marks, keep
        self.seen: dict[str, Row] = json.loads(keep.read_text()) if keep.is_file() else {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0 and 0 in self.marks:
            self._look(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.marks:
            self._look(state.global_step)

    def _look(self, step: int) -> None:
        self.seen[str(step)] = figures(self.bench, self.model.eval())
        self.model.train()
        self.keep.parent.mkdir(parents=True, exist_ok=True)
        self.keep.write_text(json.dumps(self.seen))


def figures(bench: Bench, model: Any) -> Row:
    """Loss, of a classifier also accuracy on all texts that are not trained on."""
    import torch

    space = bench.space
    if bench.given.task == "t5":
        return {"loss": bench.loss(model.eval())}
    features, total, right = [*space.examples("valid").features, *space.examples("test").features], 0.0, 0
    with torch.no_grad():
        for i in range(0, len(features), 32):
            batch = space.task.collate(features[i : i + 32])
            outputs = model.eval()(**batch)
            total += float(outputs.loss) * len(batch["labels"])
            right += int((outputs.logits.argmax(-1) == batch["labels"]).sum())
    return {"loss": total / len(features), "metric": right / len(features)}


def shown(row: Row) -> str:
    """The same in a line."""
    return f"{row['loss']:.4f}" + (f", {row['metric']:.2%}" if "metric" in row else "")
