"""Layers that learn the base model's outputs step by step (EBFT, Guo et al. 2024) against the closed forms.

    python benchmarks/layer_steps.py [t5|distilbert] [--removed 0.7] [--criteria obs l1] [-o .bench/layers-t5]

Single weights of linear targets are removed. `masked`: nothing else. `repaired`: closed forms, module by module and
sublayer by sublayer. `swept`: those, and all sublayers refitted on the inputs that they really get. From each of them
every layer learns, first to last, `--epochs` passes over the same calibration sample by AdamW towards the base model's
output, its masks held; on the base model's inputs (what `distill` does at the layer level) or, as published, on those
that it really gets behind the layers that have learnt. Of the rates the better one. Losses are on validation examples;
seconds are the processor's, of the step alone. Kept as they come; a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from common import timed_row
from learn import MODELS
from torch import Tensor

from composer.composing.model_pruner import ModelPruner
from composer.composing.refit import sweep
from composer.files.environment import machine, versions
from composer.files.journal import Journal
from composer.progress import SILENT
from composer.recipe import load_recipe
from composer.scheme.configurations import Spec
from composer.scheme.layout import Block
from composer.tasks.loss import mean_loss
from composer.tensors.batches import batch_indices
from composer.tensors.capture import first_input, recording, run_block
from composer.tensors.forward import answering, real_rows
from composer.tensors.parameters import replaced, set_values
from composer.training.blocks.distill import Distill
from composer.workspace import Workspace

STARTS, INPUTS, BATCH = ("masked", "repaired", "swept"), ("base", "own"), 32


class Layers:
    """One model, one seed."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        named = {k: str(given.shared / v) if k in ("model", "data") else v for k, v in MODELS[given.task].items()}
        more = {"calibration_size": given.calibration_size, "seed": given.seed, "folder": str(given.output)}
        self.space = Workspace(load_recipe(given={**named, **more}, file=False))
        about = {"base": self.space.base.fingerprint, "valid": given.valid, "seed": given.seed}
        self.journal = Journal(given.output, "layers", {**about, "sample": given.calibration_size})
        self.base, self.model = self.space.fresh_model(), self.space.fresh_model()
        self.parameters = dict(self.model.named_parameters())
        self.valid = self.space.examples("valid").first(given.valid)
        self.starts: dict[tuple[str, str], tuple[Mapping[str, Tensor], Mapping[str, Tensor]]] = {}

    @cached_property
    def pruner(self) -> ModelPruner:
        """Scores each target once, and repairs."""
        layout, parameters = self.space.base.layout, dict(self.base.named_parameters())
        calibration = self.space.calibrated(self.base, layout, progress=SILENT)
        return ModelPruner(layout, parameters, calibration, seed=self.given.seed)

    def start(self, criterion: str, name: str) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """All weights of the model that learning begins from, and its masks."""
        if (criterion, name) not in self.starts:
            space, given, parameters = self.space, self.given, dict(self.base.named_parameters())
            linear = {t.path: Spec(rate=given.removed) for t in space.base.layout.targets if t.kind == "linear"}
            weights, masks = self.pruner.prune(linear, criterion, repair=name != "masked")
            if name == "swept":
                with replaced(self.parameters, weights):
                    data, layout = space.examples("train"), space.base.layout
                    size, seed = given.calibration_size, given.seed
                    sweep(self.model, self.base, layout, masks, space.task, data, size=size, seed=seed)
                    weights = {n: p.detach().clone() for n, p in self.parameters.items()}
            self.starts[criterion, name] = {**{n: p.detach() for n, p in parameters.items()}, **weights}, masks
        return self.starts[criterion, name]

    def loss(self) -> float:
        """Of the model as it is."""
        return mean_loss(self.model, self.space.task, self.valid)

    def begun(self, criterion: str, name: str) -> dict[str, Any]:
        """Loss before any step."""
        set_values(self.parameters, self.start(criterion, name)[0])
        return {"loss": self.loss()}

    def learnt(self, criterion: str, name: str, inputs: str, rate: float) -> dict[str, Any]:
        """Loss after every layer has learnt."""
        weights, masks = self.start(criterion, name)
        set_values(self.parameters, weights)
        for layer in self.space.base.layout.at("layer"):
            self._learn(layer, masks, inputs, rate)
        return {"loss": self.loss()}

    def _learn(self, layer: Block, masks: Mapping[str, Tensor], inputs: str, rate: float) -> None:
        given, space = self.given, self.space
        own = {n: p for n, p in self.parameters.items() if layer.tunes(n)}
        held = {n: mask for n, mask in masks.items() if n in own}
        lessons = []
        with recording(self.base, [layer]) as wanted, recording(self.model, [layer]) as seen:
            for batch in self._batches():
                for model, record in ((self.base, wanted), (self.model, seen)):
                    with answering(model), record.listening():
                        space.task.loss(model, batch)
                arguments, right = wanted.of(layer)
                if inputs == "own":  # the stream after the layer is to be the base model's, whatever came before
                    right = right + first_input(arguments) if layer.residual else right
                    arguments, _ = seen.of(layer)
                    right = right - first_input(arguments) if layer.residual else right
                tokens = space.task.real_tokens(batch)[layer.stream]
                lessons.append((arguments, tokens, real_rows(right, tokens, layer.path)))
        steps, modules = given.epochs * len(lessons), dict(self.model.named_modules())
        learner = Distill(own, held, learning_rate=rate, steps=steps)
        for step in range(steps):
            (chosen,) = batch_indices(len(lessons), 1, seed=given.seed, step=step)
            arguments, tokens, right = lessons[chosen]

            def run(some: Mapping[str, Tensor], a: Any = arguments, t: Tensor = tokens) -> Tensor:
                return real_rows(run_block(modules, layer, some, a), t, layer.path)

            learner.step(run, right)
        set_values(self.parameters, learner.finish())

    def _batches(self) -> list[dict[str, Tensor]]:
        data, size = self.space.examples("train"), self.given.calibration_size
        chosen = batch_indices(len(data), size, seed=self.given.seed, step=0)
        rows = [[data.features[i] for i in chosen[k : k + BATCH]] for k in range(0, size, BATCH)]
        return [self.space.task.collate(some) for some in rows]

    def show(self, criterion: str) -> None:
        """Make the rows of a criterion that are not there, and print all."""
        given = self.given
        for name in STARTS:
            key = (criterion, given.removed, name)
            row = timed_row(self.journal, key, lambda n=name: self.begun(criterion, n))  # type: ignore[misc]
            print(f"{criterion}  {name}  no step  {row['loss']:.4f}  {row['cpu']:.0f}", flush=True)
            for inputs in INPUTS:
                tried = {
                    rate: timed_row(
                        self.journal,
                        (*key, inputs, rate, given.epochs),
                        lambda n=name, i=inputs, r=rate: self.learnt(criterion, n, i, r),  # type: ignore[misc]
                    )
                    for rate in given.rates
                }
                best = min(tried, key=lambda rate: tried[rate]["loss"])
                text = f"{tried[best]['loss']:.4f} at {best:g}  {tried[best]['cpu']:.0f}"
                print(f"{criterion}  {name}  layers on {inputs} inputs  {text}", flush=True)


def main() -> int:
    """Make the rows that are not there, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=list(MODELS), default="t5")
    parser.add_argument("--removed", type=float, default=0.7)
    parser.add_argument("--criteria", nargs="+", default=["obs"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-4, 1e-3])
    parser.add_argument("--calibration-size", type=int, default=512)
    parser.add_argument("--valid", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with models/ and data/")
    parser.add_argument("-o", "--output", type=Path, help="folder [.bench/layers-TASK]")
    given = parser.parse_args()
    given.output = given.output or Path(f".bench/layers-{given.task}")
    print("machine:", ", ".join(f"{k} {v}" for k, v in machine().items()))
    print("versions:", ", ".join(f"{k} {v}" for k, v in versions().items()))
    layers = Layers(given)
    dense = mean_loss(layers.base, layers.space.task, layers.valid)
    print(f"\n{given.task}, {given.removed:.0%} of linear targets, dense {dense:.4f}")
    print("masks  start  what learns  loss  processor seconds")
    torch.manual_seed(given.seed)
    for criterion in given.criteria:
        layers.show(criterion)
    print("repeat with:", " ".join(["python", "benchmarks/layer_steps.py", *sys.argv[1:]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
