"""What the recipe says for each piece of work: criteria, blocks, whole models, and all models together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..recipe import Recipe, as_for_one_model
from ..scheme.graph import Scheme
from ..workspace import Workspace

if TYPE_CHECKING:
    from ..pruning.criteria.criterion import Criterion
    from ..training.blocks.trainer import BlockSettings
    from ..training.settings import ModelSettings


def criterion_settings(space: Workspace, plan: Scheme, criteria: Sequence[Criterion]) -> dict[str, Any]:
    """What identifies the statistics that these criteria look at: calibration sample, seed."""
    from ..pruning.criteria.choice import looks_at_data
    from ..pruning.sequential import check_sequential

    r = space.recipe
    needs = {need for criterion in criteria for need in criterion.needs}
    settings: dict[str, Any] = {"seed": r.seed} if "seed" in needs else {}
    if looks_at_data(*criteria):
        settings["calibration"] = space.sample_identity()
    if r.calibration == "sequential":
        check_sequential(plan, criteria)
        # What later layers read depends on how all before them were pruned.
        before = {"criterion": r.criterion, "dead_columns": r.dead_columns, "configuration": plan.roots[0]}
        settings["calibration"] |= {"inputs": "sequential", **before}
    return settings


def block_settings(recipe: Recipe) -> BlockSettings:
    """What the recipe says about blocks."""
    from ..training.blocks.trainer import BlockSettings

    return BlockSettings(
        trainer=recipe.trainer,
        seed=recipe.seed,
        calibration_size=recipe.calibration_size,
        **recipe.block.model_dump(exclude={"valid_size"}),
    )


def wave_settings(recipe: Recipe) -> BlockSettings | None:
    """Settings of the waves: before blocks learn in context they are made in closed form; None: not at all."""
    from ..training.blocks import TRAINERS

    settings = block_settings(recipe)
    if not TRAINERS.get(settings.trainer).in_context:
        return settings
    return None if settings.start == "pruned" else replace(settings, trainer="least_squares")


def model_settings(space: Workspace) -> ModelSettings:
    """Model-level settings; epochs are turned into steps."""
    from ..training.settings import ModelSettings

    options = space.recipe.finetune
    steps = options.steps
    if steps is None:
        steps = max(1, round(options.epochs * len(space.examples("train")) / options.batch_size))
    return ModelSettings(
        steps,
        options.batch_size,
        options.learning_rate,
        options.warmup,
        options.weight_decay,
        options.clip,
        options.evaluations,
        space.recipe.seed,
        space.recipe.precision,
        options.distill,
    )


def joint_settings(space: Workspace) -> ModelSettings:
    """Settings of the joint phase: what is not said of blocks is as for one whole model."""
    block, whole = space.recipe.block, model_settings(space)
    told = as_for_one_model(block, space.recipe.finetune, whole.steps)
    return replace(
        whole,
        steps=told.steps,
        batch_size=told.batch_size,
        learning_rate=told.learning_rate,
        evaluations=block.evaluations,
    )
