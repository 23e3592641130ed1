"""``SparseTrainer``: learnt masks, a teacher and the smaller model in one object, on top of the callbacks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from ..errors import RecipeError
from ..scheme.rules import Rules
from ..training.callbacks.learn_masks import LearnMasks
from ..training.callbacks.teacher import distill_loss
from .shrink import load, shrink

if TYPE_CHECKING:
    from torch import nn

    from ..shrinking.shrink import Asked
    from ..tensors.learnt.scores import LearntScores


class SparseTrainer(Trainer):
    """A Trainer that learns what to prune, and then makes the smaller model: what nn_pruning's mixin did.

    It adds nothing to :class:`composer.LearnMasks`, :func:`composer.distill_loss` and :func:`composer.shrink`, which do
    the same in a Trainer of any other kind. As a mixin it stands first: ``class Mine(SparseTrainer, YourTrainer)``.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Any = None,
        *,
        rules: Rules | str | Path,
        scores: str | type[LearntScores] = "movement",
        start: str | Path | None = None,
        teacher: nn.Module | None = None,
        share: float = 0.5,
        temperature: float = 2.0,
        hidden: float = 0.0,
        **options: Any,
    ) -> None:
        """A Trainer with the callback of the rules.

        Args:
            rules, scores, start: as for :class:`composer.LearnMasks`.
            teacher: a model of any size, with the same classes or words, whose answers are learnt.
            share, temperature, hidden: of what is learnt of it in the loss; see :func:`composer.distill_loss`.
            options: all that a Trainer takes.

        Raises:
            RecipeError: a loss function beside a teacher.
        """
        if teacher is not None:
            if options.get("compute_loss_func"):
                raise RecipeError("SparseTrainer: got teacher and compute_loss_func; allowed: one of them")
            options["compute_loss_func"] = distill_loss(
                teacher, model, share=share, temperature=temperature, hidden=hidden
            )
        self.masks = LearnMasks(rules, scores=scores, start=start)
        options["callbacks"] = [self.masks, *(options.get("callbacks") or ())]
        super().__init__(model=model, args=args, **options)

    def compile(self, output: str | Path, form: Asked = "auto") -> nn.Module:
        """Write the model without what is masked to ``output``, verified to be the same one, with its tokenizer.

        The masked model stays beside it (``…-masked``).

        Args:
            form: of the shrunk model, as for :func:`composer.shrink`.

        Returns:
            The smaller model, as :func:`composer.load` gives it.

        Raises:
            ModelError: nothing can be taken out: no head, neuron, sublayer or layer is wholly masked.
        """
        folder = Path(output)
        masked = folder.with_name(f"{folder.name}-masked")
        shutil.rmtree(masked, ignore_errors=True)
        self.save_model(str(masked))
        shrink(masked, folder, form, force=True)
        return load(folder)
