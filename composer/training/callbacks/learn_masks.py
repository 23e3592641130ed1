"""``LearnMasks``: a callback that learns what to prune while anybody's Trainer learns the task (movement pruning)."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from ...errors import ConfigError, ModelError, did_you_mean
from ...models.in_memory import layout_in_memory
from ...scheme.rules import Ruled, Rules, read_rules
from ...tensors.learnt import WAYS
from ...tensors.learnt.patch import Patch, drawn_in
from ...tensors.learnt.scores import LearntScores
from ...tensors.parameters import parameters_of, unwrapped
from . import checkpoint
from .claims import claim, free_of_others, give_up
from .keep_sparse import Reporting, refuse_distributed
from .pruned_start import PrunedStart
from .together import average, begin_together

logger = logging.get_logger("composer")


class LearnMasks(Reporting):
    """Movement pruning (Sanh et al. 2020): ``Trainer(…, callbacks=[LearnMasks({"*.ffn.lin1": {"rate": 0.7}})])``.

    The model computes with the units of the highest scores, more and more of the others masked; every score learns as
    if its unit were not masked, and a masked weight keeps its value, so that it can come back. Between steps (when the
    model is measured or saved) masks are on. At the end what is masked is exactly 0; shrink the saved folder.

    Checkpoints have all that a training needs to go on and end with the same bytes (``masks.safetensors``). With
    ``load_best_model_at_end`` the best model is looked for where all masks are at their final rate.
    """

    def __init__(
        self,
        rules: Rules | str | Path,
        scores: str | type[LearntScores] = "movement",
        start: str | Path | None = None,
    ) -> None:
        """Rules are read when the training begins.

        Args:
            rules: glob, or ``re:`` and a regular expression, of target paths -> ``{"rate": 0.7}``, with
                ``granularity`` (the target's default), ``warm-up`` and ``cool-down`` (shares of the training, 0.1 and
                0.3); or a YAML file of them. With ``sigmoid`` and ``l0`` they say a ``penalty`` in place of the rate.
            scores: ``movement``, ``magnitude`` (the units of the smallest weights as they are now), ``sigmoid`` (soft
                movement: a threshold and a penalty), ``l0`` (hard concrete gates), or a class that derives from
                :class:`composer.plugin.LearntScores`.
            start: a masked model folder, pruned (and repaired or tuned) from the model that learns: learning goes on
                from its weights and masks, and each schedule from its rate. What was removed keeps the model's own
                value behind the mask, and can come back.

        Raises:
            ConfigError: no such scores; a start for scores that find the rates themselves.
        """
        if isinstance(scores, str) and scores not in WAYS.names():
            allowed = f"{', '.join(WAYS.names())}, or a class of LearntScores{did_you_mean(scores, WAYS.names())}"
            raise ConfigError(f"LearnMasks: scores: got {scores!r}; allowed: {allowed}")
        self.way: type[LearntScores] = WAYS.get(scores) if isinstance(scores, str) else scores
        if start is not None and self.way.amount == "penalty":
            raise ConfigError(f"LearnMasks: start: got {str(start)!r} with {scores!r}, which begins with all weights")
        self.rules, self.start = rules, start
        self.ruled: list[Ruled] = []
        self._patch: Patch | None = None
        self._kinds: dict[str, str] = {}
        self._handles: list[Any] = []

    @property
    def patch(self) -> Patch:
        """The masks as they are now, and the scores behind them.

        Raises:
            ModelError: the training has not begun.
        """
        if self._patch is None:
            raise ModelError("LearnMasks: nothing is masked before the training begins")
        return self._patch

    @property
    def names(self) -> Set[str]:
        """The weights that masks are learnt of, by name; nothing before the training begins."""
        return self._patch.scores.names if self._patch else set()

    def figures(self) -> dict[str, float]:
        """Share of the named weights that is masked now, and the scores below which that is; each by kind too."""
        if self._patch is None:
            return {}
        counts: dict[str, tuple[int, int]] = {}
        for p in self.patch.scores.projections:
            mask = self.patch.masks.get(p.weight)
            gone = int((p.of(mask) == 0).sum()) if mask is not None else 0
            zeros, weights = counts.get(self._kinds[p.path], (0, 0))
            counts[self._kinds[p.path]] = zeros + gone, weights + p.out_features * p.in_features
        zeros, weights = (sum(both) for both in zip(*counts.values(), strict=True))
        kinds = {f"sparsity_{kind}": gone / of for kind, (gone, of) in counts.items()}
        return {"sparsity": zeros / weights} | (kinds if len(kinds) > 1 else {}) | self._thresholds()

    def _thresholds(self) -> dict[str, float]:
        """Kind -> mean over its parts of the highest score that is masked."""
        found: dict[str, list[float]] = {}
        for one, threshold in zip(self.ruled, self.patch.scores.thresholds, strict=True):
            if threshold == threshold:  # else nothing is masked there
                found.setdefault(self._kinds[one.part.projections[0].path], []).append(threshold)
        return {f"threshold_{kind}": sum(values) / len(values) for kind, values in found.items()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        refuse_distributed(args)
        model = unwrapped(kwargs["model"])
        free_of_others(model, state)
        layout, parameters = layout_in_memory(model), parameters_of(model)
        refuse_half(parameters)
        self.ruled = read_rules(self.rules, layout, self.way.amount)
        self._kinds = {p.path: target.kind for target in layout.targets for p in target.projections}
        start = PrunedStart.of(self.start, parameters) if self.start is not None else None
        if start:
            self.ruled = start.begun(self.ruled)
        weights = {p.weight for one in self.ruled for p in one.part.projections}
        scores = self.way(
            {**parameters, **start.ordered(sorted(weights))} if start else parameters,
            [(one.part, one.shape) for one in self.ruled],
            state.max_steps,
        )
        if args.world_size > 1:
            begin_together(scores)
        if start:
            start.put_into(scores, self.ruled)
        self._patch = Patch(parameters, scores)
        claim(self, model, state)
        if state.global_step:
            checkpoint.load(_folder(args, state.global_step), self._patch, state.global_step)
        self._handles = [parameters[name].register_hook(self._learner(name)) for name in sorted(scores.names)]
        begun = f", from those of {start.folder}" if start else ""
        logger.warning(f"LearnMasks: masks of {len(self.ruled)} parts are learnt{begun}")

    def _learner(self, name: str) -> Any:
        """A hook on a parameter: its score learns from the gradient, of which the optimiser sees what is not masked."""

        def learn(gradient: Tensor) -> Tensor:
            if name in self.patch.scores.of:
                self.patch.scores.learn(name, gradient, self.patch.before[name])
            return self.patch.masked(name, gradient)

        return learn

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, way = state.global_step, state.global_step / state.max_steps
        if self.patch.scores.refreshed_in(step):
            self.patch.follow([one.at(way) for one in self.ruled], drawn_in(step, args.seed))
        else:
            self.patch.on()
        if args.load_best_model_at_end and any(way < 1 - one.cool_down for one in self.ruled):
            # What was measured so far had fewer masks than the result will have: none of it can be the best.
            state.best_metric = state.best_model_checkpoint = state.best_global_step = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.patch.off()
        if args.world_size > 1:
            average(self.patch.scores)
        self.patch.scores.step(self.patch.parameters)  # of all accumulated batches

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is measured and saved now is the masked model; after the last step, as it will be."""
        last = state.global_step == state.max_steps
        if self.way.every_step or last:
            self.patch.follow([one.at(state.global_step / state.max_steps) for one in self.ruled])
        else:
            self.patch.on()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.patch.before and args.should_save:
            checkpoint.save(_folder(args, state.global_step), self.patch, state.global_step)

    def abandon(self) -> None:
        """Give the model its values back: the training was interrupted, and another one begins."""
        self._unhook()
        self.patch.off()

    def _unhook(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._unhook()
        give_up(self, unwrapped(kwargs["model"]))
        if args.load_best_model_at_end and state.best_model_checkpoint:
            checkpoint.load_masks(Path(state.best_model_checkpoint), self.patch, state.best_global_step)
        elif state.global_step < state.max_steps:  # ended early: what is asked is there all the same
            self.patch.follow([one.at(1.0) for one in self.ruled])
        self.patch.leave()


def refuse_half(parameters: Mapping[str, Tensor]) -> None:
    """Refuse weights of 16 bits in which training ends in NaN: transformers loads what a folder has.

    Raises:
        ModelError: naming one of them.
    """
    for name, parameter in parameters.items():
        if parameter.dtype == torch.float16:
            raise ModelError(
                f"LearnMasks: {name}: got float16, in which optimisers end in NaN; allowed: "
                'float32 (from_pretrained(…, dtype="float32")), with bf16=True for speed'
            )


def _folder(args: Any, step: int) -> Path:
    """The checkpoint of a step: of this training, or of the one that it goes on with."""
    own = Path(args.output_dir) / f"checkpoint-{step}"
    named = args.resume_from_checkpoint
    return Path(named) if isinstance(named, str) and Path(named).is_dir() and not own.is_dir() else own
