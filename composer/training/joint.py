"""Joint tuning: all configurations of a scheme learn as one network whose blocks have variants.

One set of tensors ``θ``, that of the base model, is shared by all configurations and rates. A block's variant is
``(θ + Δ) ∘ M``, with its mask ``M`` and a fixed offset ``Δ``: what the closed forms changed in it (zero without
them). Each step draws a configuration (in seeded rounds of all; in long phases those that lack much take several turns
in each, :func:`.turns`), composes it from the variants as they are, takes the task's loss and moves ``θ``: what a
variant learns serves every configuration that has it, and all other rates of its module too, as in slimmable and
once-for-all networks (Yu et al. 2019; Cai et al. 2020). What the scheme leaves dense is part
of ``θ``. What a configuration owns beside it (:mod:`.own_parts`) learns in its own steps only. Under a launcher every
process draws a configuration of its own, and gradients are averaged.

Not every configuration gains by what all learn: where the base model has nothing left to learn, steps help those that
lack much and spoil what the closed forms have nearly repaired. So one that is better as it began stays so, and the
``θ`` that is kept is the one with the lowest mean of what each would take (:meth:`JointHooks.measure`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..parallel.ranks import rank_and_size
from ..progress import SILENT, Bar, Progress
from ..tasks.loss import mean_loss
from ..tasks.task import Examples, Task
from ..tensors.batches import batch_indices
from ..tensors.forward import hooked
from ..tensors.masks import gradient_masker
from ..tensors.parameters import parameters_of, set_values
from .distillation import Answers
from .hooks import TrainingHooks
from .learning_part import learning
from .loop import train_whole
from .own_parts import OwnPart, OwnParts, add_own, own_parts
from .settings import ModelSettings, ModelTuning, finite

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Variant:
    """A block's offsets and keep-masks by parameter name; a parameter without an offset has none."""

    offsets: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Variant:
        """From a block's weights as they are to be at the start: what they differ by from the base model's.

        Where a weight is removed the offset is 0, as it would be masked anyway: so a block that was only pruned has no
        offset to keep in memory.
        """
        gaps = {name: value.to(base[name]) - base[name].detach() for name, value in weights.items()}
        kept = {name: mask.to(base[name].device) for name, mask in masks.items()}
        gaps = {name: gap.masked_fill(~kept[name], 0.0) if name in kept else gap for name, gap in gaps.items()}
        return cls({name: gap for name, gap in gaps.items() if bool(gap.any())}, kept)

    def weights(self, shared: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """``(θ + Δ) ∘ M`` of these parameters."""
        composed = {}
        for name in names:
            value = shared[name].detach()
            value = value + self.offsets[name] if name in self.offsets else value.clone()
            composed[name] = value.masked_fill_(~self.masks[name], 0.0) if name in self.masks else value
        return composed


Configuration = Sequence[Variant]
"""The variants that a configuration is composed from; everything else in it is ``θ``."""


@torch.no_grad()
def put_on(
    parameters: Mapping[str, Tensor], configuration: Configuration, own: OwnPart | None = None
) -> dict[str, Tensor]:
    """Turn ``θ`` in ``parameters`` into the configuration's weights, in place; returns ``θ`` of what was changed."""
    before = {}
    for variant in configuration:
        for name in {**variant.offsets, **variant.masks}:
            before[name] = parameters[name].detach().clone()
            if name in variant.offsets:
                parameters[name].add_(variant.offsets[name])
            if name in variant.masks:
                parameters[name].masked_fill_(~variant.masks[name], 0.0)
    if own:
        masks = {name: mask for variant in configuration for name, mask in variant.masks.items()}
        before = add_own(parameters, own, masks) | before
    return before


@contextmanager
def composed(
    parameters: Mapping[str, Tensor], configuration: Configuration, own: OwnPart | None = None
) -> Iterator[None]:
    """Within the body ``parameters`` have the configuration's weights in the place of ``θ``."""
    before = put_on(parameters, configuration, own)
    try:
        yield
    finally:
        set_values(parameters, before)


def drawn(configurations: int, seed: int, step: int, rank: int = 0, size: int = 1) -> int:
    """Which of so many turns process ``rank`` of ``size`` takes in ``step``: each once in a seeded order, then again.

    It follows from its arguments alone, so a resumed run needs no state to draw as it would have drawn, and processes
    draw different ones without a word: together they go through one order, ``size`` places in each step.

    >>> sorted(drawn(3, 0, step) for step in range(3))
    [0, 1, 2]
    """
    return batch_indices(configurations, 1, seed=seed, step=step * size + rank)[0]


def better_before(each: Sequence[Mapping[str, Any]], step: int) -> list[int]:
    """Configurations with a lower validation loss before any step than after ``step`` steps.

    Args:
        each: rows ``step, configuration, valid_loss``.
    """
    losses = {(row["step"], row["configuration"]): row["valid_loss"] for row in each}
    return sorted(number for (at, number), loss in losses.items() if at == 0 and loss < losses[step, number])


def tune_joint(
    model: nn.Module,
    configurations: Sequence[Configuration],
    task: Task,
    train: Examples,
    valid: Examples,
    settings: ModelSettings,
    *,
    patience: int,
    work: Path,
    times: Sequence[int] | None = None,
    answers: Answers | None = None,
    weights: Sequence[str] = (),
    progress: Progress = SILENT,
) -> tuple[ModelTuning, list[dict[str, Any]]]:
    """Tune ``θ``, the parameters of ``model``, in place; those with the lowest mean validation loss stay in it.

    In that mean a configuration counts as it began where it was better so; which these are at the end is in
    ``ModelTuning.stays``.

    Args:
        model: the base model.
        configurations: all that are to learn.
        settings: ``steps`` counts joint steps in all.
        patience: stop after so many evaluations without a lower mean loss.
        work: folder for checkpoints; a run that finds one there goes on from it. The caller deletes it.
        times: how often each configuration is drawn in one round of all (:func:`.turns`); once without.
        answers: the base model's answers, to be learnt beside the labels.
        weights: names of those that get low-rank updates where configurations own such (``settings.own``).

    Returns:
        The mean over configurations as it went, and rows ``step, configuration, train_loss, valid_loss`` (of training:
        the mean over the configuration's steps since the row before, in all processes; None without such a step).
    """
    with progress.bar(f"joint: {len(configurations)} configurations, {settings.steps} steps", settings.steps) as bar:
        hooks = JointHooks(task, valid, configurations, settings, patience, work, bar, times)
        with (
            learning(model, settings.train),
            own_parts(model, len(configurations), weights, settings) as (hooks.own, hooks.frozen),
            hooks.masked(model),
        ):
            tuned = train_whole(model, task, train, hooks, answers)
            tuned.stays = better_before(hooks.extra["each"], tuned.best_step)
            tuned.own = [part for number in range(len(configurations)) if (part := hooks.part(number))]
        return tuned, hooks.extra["each"]


class JointHooks(TrainingHooks):
    """Draws and composes before each step, puts ``θ`` back before the optimiser moves it."""

    def __init__(
        self,
        task: Task,
        valid: Examples,
        configurations: Sequence[Configuration],
        settings: ModelSettings,
        patience: int,
        work: Path,
        bar: Bar,
        times: Sequence[int] | None = None,
    ) -> None:
        super().__init__(settings, work, bar, patience=patience)
        self._round = [number for number, often in enumerate(times or [1] * len(configurations)) for _ in range(often)]
        self.task, self.valid, self.configurations = task, valid, configurations
        # Equal configurations are one, and own one part.
        self._owners = [list(configurations).index(one) for one in configurations]
        self.own: OwnParts | None = None
        self.frozen: frozenset[str] = frozenset()
        self.extra: dict[str, Any] = {"each": []}
        self._drawn: list[int] = []
        self._on = 0
        self._before: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}

    def part(self, number: int) -> OwnPart | None:
        """What a configuration owns; None where they own nothing."""
        return self.own.part(self._owners[number]) if self.own else None

    def masked(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the body a removed weight has no gradient: clipping and the optimiser's moments never see it.

        The masks change with every step, so one hook on each parameter looks up those of the configuration that is on.
        Gradients are masked while they arise, as the Trainer clips before it calls :meth:`before_update`; and before
        they are averaged over processes, whose configurations have other masks.
        """

        def masker(name: str) -> Any:
            return lambda gradient: gradient_masker(self._masks[name])(gradient) if name in self._masks else gradient

        hooks = (p.register_hook(masker(name)) for name, p in parameters_of(model).items() if p.requires_grad)
        return hooked(hooks)

    def before_step(self, model: nn.Module, step: int) -> None:
        """Compose the configuration that is drawn.

        The model then computes with ``(θ + Δ) ∘ M`` in the place of ``θ``. A gradient with respect to that, masked by
        ``M``, is the one with respect to ``θ``: what is added does not change it.
        """
        number = self._round[drawn(len(self._round), self.settings.seed, step, *rank_and_size())]
        self._drawn.append(number)
        configuration, self._on = self.configurations[number], number
        self._masks = {name: mask for variant in configuration for name, mask in variant.masks.items()}
        self._before = put_on(parameters_of(model), configuration, self.part(number))

    def before_update(self, model: nn.Module) -> None:
        """Put ``θ`` back: the optimiser moves it by the gradients of the configuration.

        Weights that the configuration lacks may move too, by moments of others that have them: ``θ`` belongs to all,
        and is masked only where it is composed.
        """
        parameters = parameters_of(model)
        if self.own:
            self.own.take_gradients(self._owners[self._on], parameters, self.frozen)
        set_values(parameters, self._before)
        self._before, self._masks = {}, {}

    def measure(self, model: nn.Module, step: int) -> float:
        """The mean of all configurations' validation losses, of each the one at the start if that was lower.

        What was measured is in ``extra["each"]``, a row for each.
        """
        losses, learnt = [], self._learnt(model)
        for number, configuration in enumerate(self.configurations):
            with composed(parameters_of(model), configuration, self.part(number)):
                losses.append(mean_loss(model, self.task, self.valid))
            valid = finite(losses[-1])
            self.extra["each"].append(
                {"step": step, "configuration": number, "train_loss": finite(learnt[number]), "valid_loss": valid}
            )
        self._drawn.clear()
        starts = [row["valid_loss"] for row in self.extra["each"][: len(losses)]]
        # The loss first, so that one that is no number stays none; at step 0 a start may be none, too.
        return sum(map(min, losses, starts) if step else losses) / len(losses)

    def _learnt(self, model: nn.Module) -> list[float | None]:
        """Each configuration's mean training loss since the last measurement, of all processes' draws.

        Losses and draws are cleared at each measurement, and checkpoints made right after one: after a resume both are
        empty, so they stay as long as each other.
        """
        device = next(model.parameters()).device
        sums = torch.zeros(len(self.configurations), 2, device=device)
        for loss, number in zip(self.losses, self._drawn, strict=True):
            # The loss, and one more step of this configuration.
            sums[number] += torch.stack([loss.detach().float().to(device), torch.ones((), device=device)])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return [total / count if count else None for total, count in sums.tolist()]
