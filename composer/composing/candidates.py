"""Configurations of one base model, each put together for a moment to be measured: pruned, repaired in closed form."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from ..scheme.configurations import Assignment
from ..tasks.loss import loss_and_logits, scored_loss
from ..tasks.task import input_lengths
from ..tensors.batches import by_length
from ..tensors.forward import answering, to_device_of
from ..tensors.parameters import replaced
from ..training.joint import Variant
from .model_pruner import ModelPruner

if TYPE_CHECKING:
    from torch import nn

    from ..calibration.sample import Calibration
    from ..pruning.cutter import Scores
    from ..shrinking.in_memory import SmallModels
    from ..tasks.task import Batch, Examples, Task

BATCH = 64
"""Examples that are run at once."""
HELD = 3
"""Repaired sublayers of so many models stay in memory: a search changes a few of them from one to the next."""
Key = tuple[tuple[str, str], ...]
"""What is said of the targets of one sublayer."""


class Candidates:
    """Models of any widths; moments and scores are gathered once."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        calibration: Calibration,
        criterion: str,
        *,
        damping: float,
        seed: int,
        dead_columns: bool = True,
        scores: Scores | None = None,
        small: SmallModels | None = None,
    ) -> None:
        """Nothing is gathered yet.

        Args:
            model: the base model; its weights are what they were after each call.
            criterion: decides which units go.
            damping, seed, dead_columns, scores: as for :class:`.model_pruner.ModelPruner`.
            small: makes the small models that are run instead of masked ones, where they can be made.
        """
        self.small = small
        self.model, self.task, self.criterion, self.calibration, self.seed = model, task, criterion, calibration, seed
        self._variants: dict[Key, Variant] = {}
        self._held: dict[Key, dict[str, Tensor]] = {}
        self._places = {path: block.path for block in calibration.layout.at("sublayer") for path in block.targets}
        self._bases: dict[int, list[tuple[Batch, Tensor | None]]] = {}
        self.parameters = dict(model.named_parameters())
        how: dict[str, Any] = {"damping": damping, "seed": seed, "dead_columns": dead_columns, "scores": scores}
        self.pruner = ModelPruner(calibration.layout, self.parameters, calibration, **how)

    def divergence(self, assigned: Assignment, count: int) -> float:
        """How far a configuration's answers are from the base model's on so many examples of the calibration sample.

        The mean Kullback-Leibler divergence of the answers that are asked for; of a task without logits of classes its
        own loss. The examples are the first ones in an order that the seed draws.
        """
        with torch.no_grad():
            wanted = self._wanted(count)
            total, answers = 0.0, 0
            with self.as_model(assigned) as model, answering(model):
                for batch, logits in wanted:
                    loss, n, found = self._answers(model, batch)
                    if logits is None or found is None:
                        total, answers = total + float(loss) * n, answers + n
                        continue
                    # In 64 bits: what divides candidates is often less than the last bits of 32-bit log chances.
                    logs, own = (one.double().log_softmax(-1) for one in (logits, found))
                    total += float(functional.kl_div(own, logs, reduction="sum", log_target=True))
                    answers += len(logs)
        return total / max(1, answers)

    def _wanted(self, count: int) -> list[tuple[Batch, Tensor | None]]:
        """Batches with the base model's logits; kept, since each count is asked for again and again."""
        if count not in self._bases:
            every = [i for chosen in self.calibration.indices for i in chosen]
            random.Random(self.seed).shuffle(every)
            features = [self.calibration.data.features[i] for i in every[:count]]
            order = by_length(input_lengths(features), BATCH)
            batches = [to_device_of(self.model, self.task.collate([features[i] for i in own])) for own in order]
            with answering(self.model):
                self._bases[count] = [(batch, self._answers(self.model, batch)[2]) for batch in batches]
        return self._bases[count]

    def _answers(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int, Tensor | None]:
        """The loss, what it is a mean over, and logits of the answers that are asked for, (answers, classes)."""
        loss, count, logits = loss_and_logits(model, self.task, batch)
        if logits is None or logits.shape[-1] == 1:
            return loss, count, None
        asked = self.task.asked(batch)
        rows = logits[asked] if asked is not None else logits.flatten(0, -2)
        return loss, count, rows

    @contextmanager
    def as_model(self, assigned: Assignment) -> Iterator[nn.Module]:
        """A model that answers as the configuration does: a small one, or else the base model with its weights."""
        weights = self._weights(assigned)
        if (made := self.small.made(weights) if self.small else None) is not None:
            yield made
            return
        with replaced(self.parameters, weights):
            yield self.model

    def configuration(self, assigned: Assignment) -> list[Variant]:
        """A configuration as one that learns together with others: what is the same in several is one variant."""
        made = []
        for key in self._sublayers(assigned):
            if key not in self._variants:
                weights, masks = self.pruner.prune(
                    {path: assigned[path] for path, _ in key}, self.criterion, repair=True
                )
                self._variants[key] = Variant.of(weights, masks, self.parameters)
            made.append(self._variants[key])
        return made

    def _weights(self, assigned: Assignment) -> dict[str, Tensor]:
        """The weights of a configuration; sublayers that another one lately had at the same widths are not made again.

        Those of as many sublayers as :data:`HELD` models have are held.
        """
        keys = self._sublayers(assigned)
        made = {key: self._held.pop(key) for key in keys if key in self._held}
        new = {path: assigned[path] for key in keys if key not in made for path, _ in key}
        for paths, (weights, _) in self.pruner.sublayers(new, self.criterion, repair=True) if new else ():
            made[_key((path, str(new[path])) for path in paths)] = weights
        self._held |= made
        for key in list(self._held)[: -HELD * len(set(self._places.values()))]:
            del self._held[key]
        return {name: weight for key in keys for name, weight in made[key].items()}

    def _sublayers(self, assigned: Assignment) -> list[Key]:
        """What a configuration says of each sublayer: repair looks at one by itself, on the base model's inputs."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for path, said in assigned.items():
            groups.setdefault(self._places.get(path, path), []).append((path, str(said)))
        return [_key(group) for group in groups.values()]

    def loss(self, assigned: Assignment, examples: Examples) -> dict[str, float]:
        """Loss and main metric of a configuration on a split."""
        with self.as_model(assigned) as model:
            return scored(model, self.task, examples)


def _key(said: Iterable[tuple[str, str]]) -> Key:
    return tuple(sorted(said))


def scored(model: nn.Module, task: Task, examples: Examples) -> dict[str, float]:
    """Loss and main metric of a model."""
    score = task.score(model, examples)
    loss = scored_loss(score, model, task, examples)
    return {"loss": loss, task.main_metric: score.metrics[task.main_metric]}
