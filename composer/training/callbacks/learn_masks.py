"""``LearnMasks``: a callback that learns what to prune while anybody's Trainer learns the task (movement pruning)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

from ...errors import ConfigError, ModelError, did_you_mean
from ...models.in_memory import layout_in_memory
from ...tensors.learnt_scores import REFRESHED, LearntScores, MagnitudeScores, MovementScores
from ...tensors.mask_holder import MaskHolder
from ...tensors.parameters import parameters_of, set_values
from .keep_sparse import Reporting, refuse_distributed
from .rules import Ruled, Rules, read_rules

WAYS: dict[str, type[LearntScores]] = {"movement": MovementScores, "magnitude": MagnitudeScores}
"""How scores are learnt, by name."""

logger = logging.get_logger("composer")


class LearnMasks(Reporting):
    """Movement pruning (Sanh et al. 2020): ``Trainer(…, callbacks=[LearnMasks({"*.ffn.lin1": {"rate": 0.7}})])``.

    The model computes with the units of the highest scores, more and more of the others masked; every score learns as
    if its unit were not masked, and a masked weight keeps its value, so that it can come back. Between steps (when the
    model is measured or saved) masks are on. At the end what is masked is exactly 0; shrink the saved folder.
    """

    def __init__(self, rules: Rules | str | Path, scores: str | type[LearntScores] = "movement") -> None:
        """Rules are read when the training begins.

        Args:
            rules: glob, or ``re:`` and a regular expression, of target paths -> ``{"rate": 0.7}``, with
                ``granularity`` (the target's default), ``warm-up`` and ``cool-down`` (shares of the training, 0.1 and
                0.3); or a YAML file of them.
            scores: ``movement``, ``magnitude`` (the units of the smallest weights as they are now), or a class that
                derives from :class:`composer.plugin.LearntScores`.

        Raises:
            ConfigError: no such scores.
        """
        if isinstance(scores, str) and scores not in WAYS:
            allowed = f"{', '.join(WAYS)}, or a class of LearntScores{did_you_mean(scores, WAYS)}"
            raise ConfigError(f"LearnMasks: scores: got {scores!r}; allowed: {allowed}")
        self.way = WAYS[scores] if isinstance(scores, str) else scores
        self.rules = rules
        self.ruled: list[Ruled] = []
        self._before: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def figures(self) -> dict[str, float]:
        """The share of the named weights that is masked now."""
        weights = sum(score.numel() for score in self._scores.of.values())
        gone = sum(int((~mask).sum()) for name, mask in self._holder.masks.items() if name in self._scores.of)
        return {"sparsity": gone / weights}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        refuse_distributed(args)
        if args.world_size > 1:
            raise ModelError("LearnMasks: scores are learnt in one process; got several")
        if state.global_step:
            raise ModelError("LearnMasks: a checkpoint has no scores, so a training cannot be gone on with; begin anew")
        if args.load_best_model_at_end:
            raise ModelError("LearnMasks: load_best_model_at_end would load a model with fewer masks; leave it out")
        model = kwargs["model"]
        self.ruled = read_rules(self.rules, layout_in_memory(model))
        self._parameters = parameters_of(model)
        self._scores = self.way(self._parameters, [(one.part, one.shape) for one in self.ruled])
        self._holder = MaskHolder(self._parameters, {})
        self._handles = [
            self._parameters[name].register_hook(self._learner(name))
            for name in {*self._scores.of, *self._scores.masks([1.0] * len(self.ruled))}
        ]
        logger.warning(f"LearnMasks: masks of {len(self.ruled)} parts are learnt")

    def _learner(self, name: str) -> Any:
        """A hook on a parameter: its score learns from the gradient, of which the optimiser sees what is not masked."""

        def learn(gradient: Tensor) -> Tensor:
            if name in self._scores.of:
                self._scores.learn(name, gradient, self._before[name])
            mask = self._holder.masks.get(name)
            return gradient if mask is None else gradient.masked_fill(~mask, 0.0)

        return learn

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % max(1, state.max_steps // REFRESHED) == 0:
            self._restore()
            self._mask(state.global_step / state.max_steps)
        elif not self._before:
            self._put_on()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._restore()
        self._scores.step(self._parameters)  # of all accumulated batches

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._put_on()  # what is measured and saved now is the masked model

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._restore()
        self._mask(1.0)
        self._holder.check("end of the training")
        self._before = {}
        while self._handles:
            self._handles.pop().remove()

    def _mask(self, way: float) -> None:
        self._holder = MaskHolder(self._parameters, self._scores.masks([one.rate_at(way) for one in self.ruled]))
        self._put_on()

    def _put_on(self) -> None:
        """Keep the values of what is named, and set what is masked to 0."""
        if not self._before:
            names = {*self._scores.of, *self._holder.masks}
            self._before = {name: self._parameters[name].detach().clone() for name in names}
        self._holder.apply()

    @torch.no_grad()
    def _restore(self) -> None:
        """Give masked weights their values back, for the optimiser to move."""
        set_values(self._parameters, self._before)
        self._before = {}
