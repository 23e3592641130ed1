"""What the recipe says for each piece of work: criteria, blocks, sweeps, whole models, all models together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..recipe import PEAK_RATES, Recipe, as_for_one_model
from ..scheme.graph import Scheme
from ..workspace import Workspace

if TYPE_CHECKING:
    from ..pruning.criteria.criterion import Criterion
    from ..tasks.task import Examples
    from ..training.blocks.trainer import BlockSettings
    from ..training.settings import ModelSettings


def criterion_settings(space: Workspace, scheme: Scheme, criteria: Sequence[Criterion]) -> dict[str, Any]:
    """What identifies the statistics that these criteria look at: calibration sample, seed."""
    from ..pruning.criteria.criterion import SAMPLED
    from ..pruning.sequential import check_sequential

    r = space.recipe
    needs = {need for criterion in criteria for need in criterion.needs}
    settings: dict[str, Any] = {"seed": r.seed} if "seed" in needs else {}
    if needs & SAMPLED:
        settings["calibration"] = space.sample_identity()
    if "movement" in needs:
        pruned = scheme.touched(space.base.layout)
        settings["movement"] = space.movement_settings(pruned).identity(space.examples("train").digest)
    _check_metric(r, criteria)
    if r.calibration == "sequential":
        check_sequential(scheme, criteria)
        # What later layers read depends on how all before them were pruned, so on the whole configuration.
        before = {"criterion": r.criterion, "dead_columns": r.dead_columns, "configuration": scheme.roots[0]}
        settings["calibration"] |= {"inputs": "sequential", **before}
    return settings


def _check_metric(recipe: Recipe, criteria: Sequence[Criterion]) -> None:
    """Refuse moments that know the loss where nothing looks at moments, or not at the base model's."""
    from ..pruning.criteria import CRITERIA

    if recipe.metric == "plain":
        return
    looked_at = {"gram", "loss_gram"}
    if not any(looked_at & criterion.needs for criterion in criteria):
        allowed = ", ".join(name for name in CRITERIA.names() if looked_at & CRITERIA.get(name).needs)
        names = ", ".join(criterion.name for criterion in criteria)
        raise RecipeError(f"--metric loss: criterion {names} looks at no moments of inputs; allowed: {allowed}")
    if recipe.calibration == "sequential":
        raise RecipeError("--metric loss: looks at the base model's gradients; allowed with --calibration base")


def block_settings(recipe: Recipe) -> BlockSettings:
    """Settings for blocks, as the recipe has them."""
    from ..training.blocks.trainer import BlockSettings

    return BlockSettings(
        trainer=recipe.trainer,
        seed=recipe.seed,
        calibration_size=recipe.calibration_size,
        calibration_lengths=recipe.lengths_like,
        metric=recipe.metric,
        **recipe.block.model_dump(exclude={"valid_size", "times"}),
    )


def wave_settings(recipe: Recipe) -> BlockSettings | None:
    """Settings for the blocks of each wave; None where the waves have nothing to do.

    The waves of a trainer that learns in context are those of the trainer that it starts from.
    """
    from ..training.blocks import TRAINERS

    settings = block_settings(recipe)
    trainer = TRAINERS.get(settings.trainer)
    if not trainer.in_context:
        return settings
    first = trainer.starts_from(settings)
    return replace(settings, trainer=first) if first else None


def sweep_settings(space: Workspace) -> dict[str, Any]:
    """What identifies a sweep: its calibration sample, the damping, and the solver."""
    from ..tensors.least_squares import SOLVER

    return {**space.sample_identity(), "damping": space.recipe.block.damping, "solver": SOLVER}


def sweep_options(space: Workspace) -> dict[str, Any]:
    """The keywords of :func:`composer.composing.refit.sweep` that a recipe says."""
    r = space.recipe
    sample = {"size": r.calibration_size, "seed": r.seed, "like": space.lengths_like}
    return {**sample, "damping": r.block.damping, "metric": r.metric}


def held_out_examples(space: Workspace) -> Examples:
    """The validation examples that a composed model's sweep is held to: as many as joint tuning is measured on."""
    return space.examples("valid").first(space.recipe.block.valid_size)


def model_settings(space: Workspace) -> ModelSettings:
    """Settings for one whole model; epochs are turned into steps, for which the data are read."""
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
        train=options.train,
        dropout=options.dropout,
        group_by_length=options.group_by_length,
        keep=options.keep,
        **space.taught(),
    )


TRIED = 0.25
"""Share of the joint steps for which each learning rate is tried, with a schedule of its own."""


def joint_rates(recipe: Recipe) -> list[float]:
    """The learning rates that joint tuning tries first: the recipe's, where it says none for blocks; none where there
    is nothing to choose from."""
    return recipe.learning_rates if len(recipe.learning_rates) > 1 and _is_open(recipe) else []


def _is_open(recipe: Recipe) -> bool:
    return "learning_rate" not in recipe.block.model_fields_set


def tried_steps(steps: int) -> int:
    """Steps of one try, of a joint phase of so many."""
    return max(1, round(TRIED * steps))


def joint_settings(space: Workspace) -> ModelSettings:
    """Settings for all models together, as one network: what is not said of blocks is as for one whole model."""
    block, whole = space.recipe.block, model_settings(space)
    options = as_for_one_model(block, space.recipe.finetune, whole.steps)
    own = space.recipe.finetune.own
    return replace(
        whole,
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        evaluations=block.evaluations,
        own=own,
        own_rate=0.0 if own == "none" else space.recipe.finetune.own_rate or PEAK_RATES[own],
    )
