"""Other ways to learn four configurations as one network, each with the same steps, batches and schedule.

    OMP_NUM_THREADS=1 python benchmarks/joint_variants.py [--shared ../shared] [-o .bench/joint-variants]

One plain loop does all of them, so that they differ in one thing each: what is shared (one tensor for all rates, or
one for each variant), where it starts (repaired or pruned), in which order configurations are drawn, whether the base
model's answers are learnt too, and whether closed forms repair once more on the model that was learnt. Writes
results.json and goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import losses, plan
from joint import MODELS, configurations

from composer.composing.assemble import cover
from composer.files.environment import machine, versions
from composer.files.jsonfile import read_json, write_json
from composer.library.store import Library
from composer.recipe import load_recipe
from composer.steps.prune import prune
from composer.steps.tune_blocks import finetune_blocks
from composer.tasks.loss import mean_loss
from composer.tensors.batches import batch_indices
from composer.training.distillation import Answers
from composer.training.joint import Variant, drawn
from composer.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor, nn

N, BATCH, RATE, WARMUP, CLIP = 4, 32, 0.0003, 0.1, 1.0
Order = Callable[[int, int], int]
"""Step and number of steps -> configuration; configurations come in the order of what they remove."""


def balanced(step: int, _: int) -> int:
    """Each once in a seeded order, then again: what Composer does."""
    return drawn(N, 0, step)


def at_random(step: int, _: int) -> int:
    """Each draw for itself."""
    return int(np.random.default_rng([0, step]).integers(N))


def easy_first(step: int, count: int) -> int:
    """What removes least is drawn more often at first; from half of the steps on all are drawn alike."""
    weights = np.exp(-2.0 * max(0.0, 1 - 2 * step / count) * np.arange(N))
    return int(np.random.default_rng([0, step]).choice(N, p=weights / weights.sum()))


@dataclass(frozen=True)
class Way:
    """How the configurations learn."""

    order: Order = balanced
    repaired: bool = True
    separate: bool = False
    answers: float = 0.0


WAYS = {
    "as Composer does": Way(),
    "from pruned weights": Way(repaired=False),
    "a tensor for each variant": Way(separate=True),
    "drawn at random": Way(order=at_random),
    "small rates first": Way(order=easy_first),
    "base model's answers, 0.5": Way(answers=0.5),
}


class Network:
    """The base model's tensors with every configuration's variants."""

    def __init__(self, space: Workspace, way: Way) -> None:
        self.space, self.way, self.model = space, way, space.fresh_model()
        self.parameters = dict(self.model.named_parameters())
        scheme, library = space.scheme(), Library(space.finetuned if way.repaired else space.pruned)
        addresses = space.addresses(library, scheme)
        order = sorted(range(N), key=lambda i: scheme.sparsity(i, space.base.layout))
        covers = [[node.hash for node in cover(scheme, i, addresses)] for i in order]
        made: dict[str, Variant] = {}
        self.own: dict[int, dict[str, Tensor]] = {}
        for name in {name for names in covers for name in names}:
            artefact = library.get(addresses[name])
            made[name] = Variant.of(artefact.weights, artefact.masks, self.parameters)
            if way.separate:
                self.own[id(made[name])] = {k: v.clone().requires_grad_() for k, v in artefact.weights.items()}
        self.configurations = [[made[name] for name in names] for names in covers]
        learnt = [*self.parameters.values(), *(p for own in self.own.values() for p in own.values())]
        self.optimizer = torch.optim.AdamW(learnt, lr=RATE, weight_decay=0.0)

    def put_on(self, number: int) -> list[tuple[str, Tensor, Tensor | None, Tensor | None]]:
        """Turn the model into a configuration; returns name, shared tensor, own tensor and mask of what was changed."""
        changed = []
        for variant in self.configurations[number]:
            own = self.own.get(id(variant), {})
            for name in own or {**variant.offsets, **variant.masks}:
                p = self.parameters[name]
                changed.append((name, p.data, own.get(name), variant.masks.get(name)))
                p.data = own[name].data if own else variant.weights(self.parameters, [name])[name]
        return changed

    def take_off(self, changed: list[tuple[str, Tensor, Tensor | None, Tensor | None]]) -> None:
        """Put the shared tensors back; gradients go to what was used, where it was kept."""
        for name, shared, own, mask in changed:
            p = self.parameters[name]
            p.data = shared
            if p.grad is not None and mask is not None:
                p.grad.mul_(mask)
            if own is not None:
                own.grad, p.grad = p.grad, None

    def learn(self, count: int) -> None:
        """``count`` steps."""
        train, warm = self.space.examples("train"), round(WARMUP * count)
        task = self.space.task
        answers = Answers(self.space.fresh_model(), task, self.way.answers) if self.way.answers else None
        schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda s: s / max(1, warm) if s < warm else max(0.0, (count - s) / max(1, count - warm))
        )
        self.model.train()
        for step in range(count):
            batch = task.collate([train.features[i] for i in batch_indices(len(train), BATCH, seed=0, step=step)])
            changed = self.put_on(self.way.order(step, count))
            loss = answers.loss(self.model, batch) if answers else task.loss(self.model, batch)[0]
            loss.backward()
            self.take_off(changed)
            used = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
            torch.nn.utils.clip_grad_norm_(used, CLIP)
            self.optimizer.step()
            schedule.step()
            self.optimizer.zero_grad(set_to_none=True)
            for variant in {id(v): v for c in self.configurations for v in c}.values():
                for name, own in self.own.get(id(variant), {}).items():
                    if name in variant.masks:
                        own.data.masked_fill_(~variant.masks[name], 0.0)
        self.model.eval()

    def losses(self) -> list[float]:
        """Validation losses, in the order of what is removed."""
        found = []
        for number in range(N):
            changed = self.put_on(number)
            found.append(mean_loss(self.model, self.space.task, self.space.examples("valid")))
            self.take_off(changed)
        return found


def workspace(given: argparse.Namespace, name: str, model: str) -> Workspace:
    """Four configurations, repaired in closed form."""
    options = {"model": model, "data": str(given.shared / MODELS["t5"]["data"]), "folder": given.output / name}
    options |= {"criterion": "obs", "trainer": "least_squares", **MODELS["t5"]["recipe"]}
    space = Workspace(load_recipe(None, options, file=False))
    plan(space, configurations(MODELS["t5"], N))
    prune(space)
    finetune_blocks(space)
    return space


def again(given: argparse.Namespace, model: nn.Module, space: Workspace) -> list[float]:
    """Losses when masks are chosen and blocks repaired once more, on the dense network that was learnt."""
    folder = given.output / "learnt"
    if not folder.is_dir():
        space.base.save(model, folder)
    once_more = workspace(given, "again", str(folder))
    scheme = once_more.scheme()
    order = sorted(range(N), key=lambda i: scheme.sparsity(i, once_more.base.layout))
    found = losses(once_more, once_more.finetuned)
    return [found[i] for i in order]


def main() -> None:
    """Learn in every way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/joint-variants"))
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    held = given.output / "results.json"
    space = workspace(given, "base", str(given.shared / MODELS["t5"]["model"]))
    results: dict[str, Any] = read_json(held) if held.is_file() else {"rows": {}}
    results |= {"machine": machine(), "versions": versions(), "steps": given.steps}
    if "repaired, no step" not in results["rows"]:
        results["rows"]["repaired, no step"] = {"seconds": 0.0, "losses": Network(space, Way()).losses()}
    for name, way in WAYS.items():
        if name in results["rows"]:
            continue
        torch.manual_seed(0)
        network, began = Network(space, way), time.perf_counter()
        network.learn(given.steps)
        results["rows"][name] = {"seconds": time.perf_counter() - began, "losses": network.losses()}
        if way == Way():
            more = "and repaired once more on what was learnt"
            results["rows"][more] = {"seconds": 0.0, "losses": again(given, network.model, space)}
        write_json(held, results)
        print(f"  {name}: {results['rows'][name]}", flush=True)
    print(f"\nmachine: {results['machine']}\nversions: {results['versions']}")
    print(f"\n{given.steps} steps of {BATCH} in all, peak rate {RATE}; validation losses, what removes least first\n")
    print(f"| | mean | {' | '.join(str(i + 1) for i in range(N))} | seconds of steps |\n|---|---|{'---|' * N}---|")
    for name, row in results["rows"].items():
        each = " | ".join(f"{loss:.3f}" for loss in row["losses"])
        spent = "–" if not row["seconds"] else f"{row['seconds']:.0f}"
        print(f"| {name} | {sum(row['losses']) / N:.3f} | {each} | {spent} |")


if __name__ == "__main__":
    main()
