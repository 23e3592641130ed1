"""Candidates of `compose choose` that learn together for a short while: rankings change when models learn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..composing.candidates import scored
from ..progress import Progress
from ..tensors.parameters import parameters_of
from ..training.joint import composed, tune_joint
from ..training.settings import broke_text
from ..workspace import Workspace
from .settings import joint_settings

if TYPE_CHECKING:
    from torch import nn

    from ..composing.candidates import Candidates
    from ..scheme.configurations import Assignment
    from ..training.joint import Configuration
    from ..training.settings import ModelSettings


def rerank_settings(space: Workspace) -> list[ModelSettings]:
    """Settings of the short joint phase: those of joint tuning, at each learning rate that the recipe tries."""
    recipe = space.recipe
    settings = replace(joint_settings(space), steps=recipe.rerank)
    rates = [settings.learning_rate] if "learning_rate" in recipe.block.model_fields_set else recipe.learning_rates
    return [replace(settings, learning_rate=rate) for rate in rates or [settings.learning_rate]]


def learnt_together(
    space: Workspace,
    candidates: Candidates,
    configurations: Sequence[Assignment],
    settings: Sequence[ModelSettings],
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Let configurations learn as one network, and measure each on the whole validation split.

    Of several settings those count whose mean loss is the lowest. Training is validated on a part of the split
    (``block.valid-size``), and goes on from a checkpoint where one is in ``work``, which is removed at the end.

    Returns:
        ``scores``: loss and metric of each; ``learning_rate``, and ``steps``: those that were kept, 0 where none of
        them lowered the mean loss.
    """
    variants = [candidates.configuration(one) for one in configurations]
    model, stays, told = _best_of(space, variants, settings, work, progress)
    if not told["steps"]:
        progress.note("--rerank: no step lowered the loss of any candidate; give a lower --learning-rate")
    scores, base = [], space.fresh_model()
    with progress.bar("candidates after learning", len(variants)) as bar:
        for number, configuration in enumerate(variants):
            taken = base if number in stays else model
            with composed(parameters_of(taken), configuration):
                scores.append(scored(taken, space.task, space.examples("valid")))
            bar.advance(f"{scores[-1]['loss']:.4g}")
    shutil.rmtree(work, ignore_errors=True)
    return {"scores": scores, **told}


def _best_of(
    space: Workspace,
    variants: Sequence[Configuration],
    settings: Sequence[ModelSettings],
    work: Path,
    progress: Progress,
) -> tuple[nn.Module, Sequence[int], dict[str, Any]]:
    """What all have learnt together at the settings with the lowest mean loss, with its rate and the steps kept.

    Between them: the numbers of those that are better as they began.
    """
    valid = space.examples("valid").first(space.recipe.block.valid_size)
    best: tuple[float, nn.Module, Sequence[int], dict[str, Any]] | None = None
    for each in settings:
        model, place = space.fresh_model(), work / f"{each.learning_rate:g}"
        place.mkdir(parents=True, exist_ok=True)
        tuned, _ = tune_joint(
            model,
            variants,
            space.task,
            space.examples("train"),
            valid,
            each,
            patience=each.evaluations + 1,
            work=place,
            answers=space.answers(each, progress),
            progress=progress,
        )
        if tuned.broke is not None:
            progress.note(broke_text("--rerank", tuned.broke))
        if best is None or tuned.best_loss < best[0]:
            told = {"learning_rate": each.learning_rate, "steps": tuned.best_step}
            best = tuned.best_loss, model, tuned.stays, told
    assert best is not None
    return best[1:]
