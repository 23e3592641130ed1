"""Movement: which weights a short fine-tuning pushes away from 0, and which towards it.

Sanh et al. 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning" (equation 3). While the model learns, each target
computes with ``W' = W ∘ M``, where M keeps the units of the highest scores so far; the scores get the gradient as if M
were not there (straight through):

    S ← Adam(S, ∂L/∂W' ∘ W),        W ← AdamW(W, ∂L/∂W' ∘ M)

Scores begin as ranks by magnitude (:class:`composer.tensors.learnt.movement.MovementScores`), so that a short run is
about as good as magnitudes are. A weight that grows in magnitude gains, also while it is masked, so that it can come
back. Only what is pruned is masked; its share rises by a cubic schedule from 0 to ``rate`` (Zhu and Gupta 2017), with a
warm-up without masks and a cool-down. Other ways to learn scores are those of :mod:`composer.tensors.learnt`; rules may
say for each path what is masked and when (:mod:`composer.scheme.rules`).
The score of a larger unit is the sum of its weights' (Lagunas et al. 2021, "Block Pruning For Faster Transformers").
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from ..files.atomic import replacing
from ..progress import SILENT, Progress
from ..scheme.rules import Ruled, read_rules
from ..scheme.schedule import WARM_UP
from ..scheme.shapes import Shape, default_shape
from ..tensors.batches import batch_indices
from ..tensors.forward import to_device_of
from ..tensors.learnt import WAYS
from ..tensors.learnt.patch import Patch, drawn_in
from ..tensors.learnt.scores import LearntScores
from ..tensors.parameters import set_values

if TYPE_CHECKING:
    from torch import nn

    from ..scheme.layout import Layout, Projection, Target
    from ..tasks.task import Batch, Examples, Task

CLIP = 1.0
SAVED = 30.0
"""Seconds between two states that a killed run can go on from."""

Units = Literal["default", "structured"]


@dataclass(frozen=True)
class MovementSettings:
    """What shapes the scores.

    Attributes:
        steps: of the run.
        rate: which share of each target's units is masked at the end.
        units: what is masked while it learns: heads and single weights, or heads, neurons and what is left.
        mode: how scores are learnt (:data:`composer.tensors.learnt.WAYS`).
        penalty: of ways that find the rates.
        rules: what is masked, by path, in place of ``rate``, ``penalty``, ``units`` and ``targets``.
        taught: what identifies a teacher, and its weights in the loss; empty without one.
        targets: what is masked, by path, in the order of the layout; None: all of them.
    """

    steps: int
    batch_size: int
    learning_rate: float
    rate: float
    units: Units
    seed: int
    mode: str = "movement"
    penalty: float = 0.0
    rules: Mapping[str, Mapping[str, Any]] | None = None
    taught: Mapping[str, Any] = field(default_factory=dict)
    targets: Sequence[str] | None = None

    @property
    def way(self) -> type[LearntScores]:
        """How scores are learnt."""
        return WAYS.get(self.mode)

    def identity(self, data: str) -> dict[str, Any]:
        """For addresses; ``data`` is the digest of the examples. What is not used, or as it always was, is left out."""
        shaping = {"mode": self.mode != "movement", "penalty": self.way.amount == "penalty", "rules": bool(self.rules)}
        shaping |= {"taught": bool(self.taught), "targets": self.targets is not None and not self.rules}
        return {**{name: value for name, value in asdict(self).items() if shaping.get(name, True)}, "data": data}


class Teaching(Protocol):
    """A teacher's part in the loss (:class:`composer.training.distillation.Answers`)."""

    def begin(self, model: nn.Module, data: Examples) -> None:
        """What must be known before ``model`` learns."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mixed loss of ``model`` on ``batch``."""
        ...


def learn_movement(
    model: nn.Module,
    task: Task,
    data: Examples,
    layout: Layout,
    settings: MovementSettings,
    *,
    answers: Teaching | None = None,
    keep: Path | None = None,
    progress: Progress = SILENT,
) -> dict[Projection, Tensor]:
    """Scores of every weight of the layout, (out, in) on the CPU, by projection; the model is not changed.

    One run serves all rates and shapes of its targets, by rank. Its masks, and with them the scores, do not depend on
    the rates that are asked of them later, so an address that names the settings is enough to know the bytes.

    Args:
        answers: a teacher's, to be learnt beside the labels.
        keep: a file whose name says which run this is. A killed run goes on from there; of a finished one the scores
            stay in it, and nothing is learnt again.
    """
    state = torch.load(keep, weights_only=True) if keep and keep.is_file() else None
    if state and state["step"] == settings.steps:
        return _by_projection(layout, state["scores"])
    learner = copy.deepcopy(model)
    if answers:
        answers.begin(learner, data)
    with torch.random.fork_rng(devices=[]), progress.bar("movement", settings.steps) as bar:
        torch.manual_seed(settings.seed)
        run = _Run(learner, layout, settings)
        began, saved = run.load(state) if state else 0, time.monotonic()
        for _ in range(began):
            bar.advance("resumed")
        for step in range(began, settings.steps):
            if keep and run.scores.refreshed_in(step) and step > began and time.monotonic() - saved >= SAVED:
                _save(keep, run.state(step))
                saved = time.monotonic()
            chosen = batch_indices(len(data), settings.batch_size, seed=settings.seed, step=step)
            batch = to_device_of(learner, task.collate([data.features[i] for i in chosen]))
            bar.advance(f"loss {run.step(step, task, batch, answers):.4f}")
    if keep:
        _save(keep, {"step": settings.steps, "scores": run.scores.of})
    return _by_projection(layout, run.scores.of)


def _by_projection(layout: Layout, scores: Mapping[str, Tensor]) -> dict[Projection, Tensor]:
    return {p: p.of(scores[p.weight]).cpu() for target in layout.targets for p in target.projections}


def _save(path: Path, state: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        torch.save(state, temporary)


class _Run:
    """A copy of the model that learns, and the scores of its parameters, shaped as they are stored."""

    def __init__(self, model: nn.Module, layout: Layout, settings: MovementSettings) -> None:
        self.model, self.settings = model.train(), settings
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        self.ruled = _ruled(layout, settings)
        parts = [(one.part, one.shape) for one in self.ruled]
        self.scores = settings.way(self.parameters, parts, settings.steps)
        self.patch = Patch(self.parameters, self.scores)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=settings.learning_rate, weight_decay=0.0)

    def step(self, step: int, task: Task, batch: Mapping[str, Tensor], answers: Teaching | None = None) -> float:
        """One step of weights and scores; returns the loss before it."""
        if self.scores.refreshed_in(step):
            way = step / self.settings.steps
            self.patch.follow([one.at(way) for one in self.ruled], drawn_in(step, self.settings.seed))
        self._fall(step)
        self.patch.on()
        self.optimizer.zero_grad(set_to_none=True)
        loss = answers.loss(self.model, dict(batch)) if answers else task.loss(self.model, dict(batch))[0]
        loss.backward()
        self.patch.off()
        for name in self.scores.of:
            gradient = self.parameters[name].grad
            if gradient is not None:
                self.scores.learn(name, gradient, self.parameters[name].detach())
        self.scores.step(self.parameters)
        self.patch.mask_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)
        self.optimizer.step()
        return float(loss.detach())

    def state(self, step: int) -> dict[str, Any]:
        """All that the run needs to go on with ``step``, in which masks follow the scores."""
        weights = {name: p.detach() for name, p in self.parameters.items()}
        parts = {"weights": weights, "scores": self.scores.state(), "optimizer": self.optimizer.state_dict()}
        return {"step": step, "random": torch.get_rng_state(), **parts}

    def load(self, state: Mapping[str, Any]) -> int:
        """Take up such a state; returns the step to go on with."""
        set_values(self.parameters, state["weights"])
        self.scores.load(state["scores"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        return int(state["step"])

    def _fall(self, step: int) -> None:
        """The rate of learning rises in the warm-up and then falls linearly to 0."""
        first = max(1.0, WARM_UP * self.settings.steps)
        left = (self.settings.steps - step) / max(1.0, self.settings.steps - first)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1.0, (step + 1) / first, left)


def _ruled(layout: Layout, settings: MovementSettings) -> list[Ruled]:
    """What is masked while scores are learnt, and by which units; every projection stands in at least one part."""
    amount = settings.way.amount
    much = settings.rate if amount == "rate" else settings.penalty
    if not settings.rules:
        pruned = frozenset(layout.paths if settings.targets is None else settings.targets)
        parts = _parts(layout, pruned if settings.units == "structured" else frozenset(), frozenset())
        return [Ruled(part, shape, much if part.path in pruned else None) for part, shape in parts]
    ruled = read_rules(settings.rules, layout, amount, "movement.rules")
    covered = frozenset(p.path for one in ruled for p in one.part.projections)
    return ruled + [Ruled(part, shape, None) for part, shape in _parts(layout, frozenset(), covered)]


def _parts(layout: Layout, as_neurons: frozenset[str], covered: frozenset[str]) -> Sequence[tuple[Target, Shape]]:
    """All of the layout but what is covered; feed-forwards of which all is ``as_neurons`` in one part."""
    found: list[tuple[Target, Shape]] = []
    taken: set[str] = set()
    for path in layout.paths:
        target = layout.target(path)
        if path in taken or covered.issuperset(p.path for p in target.projections):
            continue
        whole = layout.feed_forward(path)
        if whole and not as_neurons.issuperset(p.path for p in whole.projections):
            whole = None
        shape = Shape("neuron") if whole else default_shape(target)
        found.append((whole or target, shape))
        taken |= {p.path for p in (whole or target).projections}
    return found
