"""What to prune, learnt, and learning back for little: rows of docs/learning-results.md, in one run.

    python benchmarks/learn.py [t5|distilbert] [--parts movement rates recovery merge] [-o .bench/learn-t5]

Only linear targets are pruned, by single weights; losses are on the first `--valid` validation examples. `movement`:
masks of one learnt run against `l1` and `obs`, masked, repaired in closed form, and after further training, all sides
with the same number of steps in all. `rates`: one run that serves every rate against a run for each. `recovery`: what
biases and norms alone, or low-rank updates under the mask, bring back of what everything does, each at the best of its
rates. `merge`: zeros of a LoRA that was trained without masks. `bleu`: `learn_bleu.py` (T5). `hybrid`:
`learn_hybrid.py`, `start`: `learn_start.py`, `back`: `learn_back.py` (all three DistilBERT). Every row is kept as it
comes; a killed run goes on.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from common import timed_row

from composer.composing.model_pruner import ModelPruner
from composer.files.environment import machine, versions
from composer.files.journal import Journal
from composer.models.folder import BaseModel
from composer.progress import SILENT
from composer.recipe import load_recipe
from composer.scheme.configurations import Spec
from composer.tasks.loss import mean_loss
from composer.tensors.parameters import replaced, set_values
from composer.training.model import tune_model
from composer.training.settings import ModelSettings, Part
from composer.workspace import Workspace

Row = dict[str, Any]
MODELS: Mapping[str, Row] = {
    "t5": {"model": "models/t5-mini-multi30k", "data": "data/multi30k"},
    "distilbert": {"model": "models/distilbert-mini-sst2", "data": "data/sst2", "max_source_length": 64},
}
PARTS = ("movement", "rates", "recovery", "merge", "bleu", "hybrid", "start", "back")
OF_TASK = {"distilbert": ("hybrid", "start", "back"), "t5": ("bleu",)}
"""Parts for one model alone."""
LEARNT: Mapping[Part, tuple[float, ...]] = {
    "all": (1e-5, 3e-5, 1e-4, 3e-4),
    "biases-norms": (1e-2, 3e-2),
    "lora": (3e-3, 1e-2),
}
"""What learns -> the peak rates that are tried."""


class Bench:
    """One model and seed: what was gathered of it, and the rows that are there."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        self.given, self.seed = given, seed
        self.spaces: dict[tuple[int, float], Workspace] = {}
        self.pruners: dict[tuple[int, float], ModelPruner] = {}
        self.space = self.space_of(given.steps, given.rate)
        about = {"base": self.space.base.fingerprint, "batch": given.batch_size, "valid": given.valid, "seed": seed}
        self.journal = Journal(given.output, f"seed-{seed}", about)
        self.model = self.space.fresh_model()
        self.parameters = dict(self.model.named_parameters())
        self.base = {name: p.detach().clone() for name, p in self.parameters.items()}

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

    def pruned(self, criterion: str, rate: float, *, repair: bool, run: tuple[int, float] | None = None) -> Any:
        """Weights and masks; ``run`` is the movement run whose scores are taken [as asked for]."""
        run = run or (self.given.steps, self.given.rate)
        if run not in self.pruners:
            space, layout = self.space_of(*run), self.space.base.layout
            calibration = space.calibrated(self.model, layout, progress=SILENT)
            self.pruners[run] = ModelPruner(layout, self.parameters, calibration, seed=self.seed)
        linear = {t.path: Spec(rate=rate) for t in self.space.base.layout.targets if t.kind == "linear"}
        return self.pruners[run].prune(linear, criterion, repair=repair)

    def start(self, criterion: str, rate: float, *, repair: bool, run: tuple[int, float] | None = None) -> Row:
        """Loss before any training; what the masks took is in the row that asks for them first."""
        weights, _ = self.pruned(criterion, rate, repair=repair, run=run)
        with replaced(self.parameters, weights):
            return {"loss": mean_loss(self.model, self.space.task, self.valid)}

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
        modules = [p.path for t in space.base.layout.targets if t.kind == "linear" for p in t.projections]
        model, work = space.fresh_model(), given.output / "work"
        shutil.rmtree(work, ignore_errors=True)  # of a killed row: it is made again
        work.mkdir(parents=True)
        set_values(dict(model.named_parameters()), weights)
        data = space.examples("train"), self.valid
        began = time.process_time()
        how: Row = {"work": work, "modules": modules, "answers": space.answers(settings), "progress": SILENT}
        found = tune_model(model, masks, space.task, *data, settings, **how)
        shutil.rmtree(work)
        per_step = found.train_seconds / steps
        row = {
            "start": found.first_loss,
            "loss": found.best_loss,
            "step_seconds": per_step,
            **found.part,
            **then(model),
        }
        return row | {"processor_share": (time.process_time() - began) / max(1e-9, found.train_seconds)}

    # Parts -------------------------------------------------------------------------------------------------

    def movement(self) -> None:
        """Masks of each criterion."""
        given = self.given
        run, tune = given.steps, given.tune
        print(f"\nmasks: a movement run of {run} steps (up to {given.rate:.0%} masked) serves every rate; `trained`: ")
        print(f"{tune} steps after that run, {run + tune} for the others, from repaired weights at {given.tune_rate:g}")
        print("removed  criterion  masked  repaired  trained  processor seconds")
        for rate in given.rates:
            for criterion in given.criteria:
                key = (criterion, rate, *((run, given.rate, given.learning_rate) if criterion == "movement" else ()))
                repaired, masked = (
                    self.row(("start", r, *key), lambda c=criterion, x=rate, r=r: self.start(c, x, repair=r))  # type: ignore[misc]
                    for r in (True, False)
                )
                steps = tune if criterion == "movement" else run + tune
                trained = (
                    self.row(
                        ("trained", steps, given.tune_rate, *key),
                        lambda c=criterion, x=rate, n=steps: self.tuned(  # type: ignore[misc]
                            self.pruned(c, x, repair=True), n, given.tune_rate
                        ),
                    )
                    if rate in given.trained
                    else {"loss": float("nan"), "cpu": 0.0}
                )
                losses = f"{masked['loss']:.4f}  {repaired['loss']:.4f}  {trained['loss']:.4f}"
                print(f"{rate:.0%}  {criterion}  {losses}  {masked['cpu'] + repaired['cpu'] + trained['cpu']:.0f}")

    def rates(self) -> None:
        """One run for all rates, or a run for each."""
        given, run = self.given, self.given.steps
        print(f"\none movement run of {run} steps (up to {given.rate:.0%}) against one for each rate, repaired")
        # What a run takes is a row of its own: whoever looks at its scores first would have it otherwise.
        learnt = {
            goal: self.row(("run", run, goal, given.learning_rate), partial(self._learnt, run, goal))
            for goal in dict.fromkeys((given.rate, *given.rates))
        }
        print("removed  one run for all  a run of its own")
        cost = {"one": learnt[given.rate]["cpu"], "own": 0.0}
        for rate in given.rates:
            one, own = (
                self.row(
                    ("start", True, "movement", rate, run, goal, given.learning_rate),
                    partial(self.start, "movement", rate, repair=True, run=(run, goal)),
                )
                for goal in (given.rate, rate)
            )
            cost["one"] += one["cpu"]
            cost["own"] += own["cpu"] + learnt[rate]["cpu"]
            print(f"{rate:.0%}  {one['loss']:.4f}  {own['loss']:.4f}")
        print(f"steps: {run} against {run * len(given.rates)}; processor seconds, with pruning, repair and measuring:")
        print(f"{cost['one']:.0f} against {cost['own']:.0f}, {cost['one'] / cost['own']:.0%} of what the others take")

    def _learnt(self, run: int, goal: float) -> Row:
        """Make the scores of a movement run; they stay in the folder."""
        space = self.space_of(run, goal)
        return {"scores": len(space.calibrated(self.model, space.base.layout, progress=SILENT).movement)}

    def recovery(self) -> None:
        """What each part of a model brings back."""
        dense = self.row(("dense",), lambda: {"loss": mean_loss(self.model, self.space.task, self.valid)})["loss"]
        steps = self.given.recover
        print(f"\nlearning back under l1 masks, not repaired, {steps} steps; dense {dense:.4f}")
        print("removed  what learns  rate  start  loss  share  parameters  optimiser  seconds a step")
        for rate in self.given.recovered:
            best: dict[str, tuple[Row, float]] = {}
            for part in self.given.learns:
                tried = LEARNT[part]
                for peak in self.given.all_rates if part == "all" else tried:
                    row = self.row(
                        ("recovery", part, rate, peak, steps),
                        lambda x=rate, y=peak, p=part: self.tuned(self.pruned("l1", x, repair=False), steps, y, p),  # type: ignore[misc]
                    )
                    if part not in best or row["loss"] < best[part][0]["loss"]:
                        best[part] = row, peak
                row, peak = best[part]
                whole = best["all"][0]
                share = (row["start"] - row["loss"]) / (whole["start"] - whole["loss"])
                taken = f"{row['parameters'] / row['of']:.2%}  {row['optimizer_bytes'] / 2**20:.1f} MiB"
                figures = f"{row['start']:.4f}  {row['loss']:.4f}  {share:.0%}  {taken}  {row['step_seconds']:.2f}"
                print(f"{rate:.0%}  {part}  {peak:g}  {figures}")

    def hybrid(self) -> None:
        """Blocks in attentions and neurons in feed-forwards, shrunk and densified."""
        import learn_hybrid

        learn_hybrid.part(self)

    def start_from(self) -> None:
        """Masks that begin with those of a repaired model."""
        import learn_start

        learn_start.part(self)

    def back(self) -> None:
        """What steps bring after closed forms."""
        import learn_back

        learn_back.part(self)

    def bleu(self) -> None:
        """Translations of T5 with most of its weights gone."""
        import learn_bleu

        learn_bleu.part(self)

    def merge(self) -> None:
        """A LoRA trained in anybody's way, merged into a model without half of its weights."""
        row = self.row(("merge",), self._merged)
        print(f"\nzeros of a model without half of its linear weights, after a LoRA of {self.given.recover} steps:")
        print(f"before {row['before']:,}; merged as usual {row['usual']:,}; by compose merge {row['merged']:,}")
        print(f"validation loss: {row['loss']}")

    def _merged(self) -> Row:
        import peft
        import torch

        from composer.steps.merge import merge
        from composer.tensors.batches import batch_indices
        from composer.tensors.masks import apply, zeros_per_target

        space, folder = self.space, self.given.output / "lora"
        shutil.rmtree(folder, ignore_errors=True)
        weights, masks = self.pruned("l1", 0.5, repair=False)
        model: Any = space.fresh_model()
        set_values(dict(model.named_parameters()), weights)
        apply(dict(model.named_parameters()), masks)
        (folder / "pruned").mkdir(parents=True)
        space.base.save(model, folder / "pruned")
        model = BaseModel(folder / "pruned").load()
        modules = [p.path for t in space.base.layout.targets if t.kind == "linear" for p in t.projections]
        model = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=modules, lora_dropout=0.0))
        learner = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        train = space.examples("train")
        for step in range(self.given.recover):
            chosen = batch_indices(len(train), self.given.batch_size, seed=self.seed, step=step)
            loss, _ = space.task.loss(model, space.task.collate([train.features[i] for i in chosen]))
            learner.zero_grad()
            loss.backward()
            learner.step()
        model.save_pretrained(folder / "adapter")
        made = merge(space.recipe, folder / "adapter", folder / "pruned", output=folder / "merged").summary
        usual = sum(zeros for zeros, _ in zeros_per_target(model.merge_and_unload(), space.base.layout).values())
        return {"usual": usual, **made["zeros"], "loss": made["loss"]}


def main() -> int:
    """Make the rows that are not there, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=list(MODELS), default="t5")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="[all]")
    parser.add_argument("--criteria", nargs="+", default=["l1", "obs", "movement"])
    parser.add_argument("--steps", type=int, default=300, help="of a movement run")
    parser.add_argument("--rate", type=float, default=0.7, help="masked at its end")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of its weights")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.5, 0.7, 0.9], help="that are pruned at")
    parser.add_argument("--tune", type=int, default=100, help="steps after the run")
    parser.add_argument("--tune-rate", type=float, default=3e-4)
    parser.add_argument("--trained", nargs="*", type=float, default=[0.7], help="rates that are trained further")
    parser.add_argument("--recover", type=int, default=100, help="steps of learning back")
    parser.add_argument("--recovered", nargs="+", type=float, default=[0.5, 0.7], help="rates of learning back")
    parser.add_argument("--learns", nargs="+", choices=list(LEARNT), default=list(LEARNT), help="`all` first")
    parser.add_argument("--all-rates", nargs="+", type=float, default=LEARNT["all"], help="tried where all learns back")
    parser.add_argument("--hybrid", nargs="+", choices=["blocks", "heads"], default=["blocks"], help="in attentions")
    parser.add_argument("--scores", nargs="+", default=["movement"], help="of hybrid masks")
    parser.add_argument("--hybrid-steps", type=int, default=1000)
    parser.add_argument("--hybrid-rate", type=float, default=1e-4)
    parser.add_argument("--teacher-share", type=float, default=0.9, help="of the dense model's answers in the loss")
    parser.add_argument("--densify-steps", type=int, default=200, help="after shrinking")
    parser.add_argument("--starts", nargs="+", choices=["heads", "chosen"], default=["heads", "chosen"])
    parser.add_argument("--start-rates", nargs="+", type=float, default=[1e-4], help="of both sides")
    parser.add_argument("--start-steps", type=int, default=80, help="from repaired blocks")
    parser.add_argument("--dense-steps", type=int, default=240, help="from the dense model")
    parser.add_argument("--back", nargs="+", choices=["blocks", "heads", "chosen"], default=["chosen"])
    parser.add_argument("--back-masks", nargs="*", choices=["held", "moved"], default=["held", "moved"])
    parser.add_argument("--swept", action="store_true", help="refit closed forms on a model's own inputs too")
    parser.add_argument("--timed", action="store_true", help="time the shrunk model beside the dense one too")
    parser.add_argument("--back-steps", type=int, default=300, help="after closed forms")
    parser.add_argument("--back-rates", nargs="+", type=float, default=[3e-5])
    parser.add_argument("--hidden-weights", nargs="+", type=float, default=[0.0], help="of the teacher's hidden states")
    parser.add_argument("--temperature", type=float, default=1.0, help="of answers after closed forms")
    parser.add_argument("--train-lengths", choices=["train", "valid"], default="train", help="of texts learnt from")
    parser.add_argument("--no-dropout", dest="dropout", action="store_false", help="while learning back")
    parser.add_argument(
        "--bleu", nargs="+", choices=["single", "hybrid", "units", "chosen"], default=["single", "hybrid"]
    )
    parser.add_argument("--bleu-steps", type=int, default=300)
    parser.add_argument("--bleu-rates", nargs="+", type=float, default=[3e-4], help="peak rates")
    parser.add_argument("--bleu-test", type=int, default=500, help="test sentences")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--valid", type=int, default=512)
    parser.add_argument("--calibration-size", type=int, default=256)
    parser.add_argument("--calibration-lengths", choices=["train", "valid"], default="train")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, help="folder [.bench/learn-TASK]")
    given = parser.parse_args()
    others = [name for task, names in OF_TASK.items() if task != given.task for name in names]
    given.parts = given.parts or [name for name in PARTS if name not in others]
    given.output = given.output or Path(f".bench/learn-{given.task}")
    import torch  # noqa: F401  (machine() tells its number of threads)

    print("machine:", ", ".join(f"{k} {v}" for k, v in machine().items()))
    print("versions:", ", ".join(f"{k} {v}" for k, v in versions().items()))
    for seed in given.seeds:
        bench = Bench(given, seed)
        print(f"\n{given.task}, seed {seed}, batches of {given.batch_size}, {given.valid} validation examples")
        for part in given.parts:
            getattr(bench, {"start": "start_from"}.get(part, part))()
    print(f"\nrepeat with: {shlex.join(['python', 'benchmarks/learn.py', *sys.argv[1:]])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
