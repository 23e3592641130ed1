"""`compose run` and `compose demo`: the whole way from rates to compared models; what is there and current stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..progress import SILENT, Progress
from ..recipe import Recipe, load_recipe, merged
from ..workspace import Given, Workspace
from .build_model import build_model
from .choose import choose
from .compare import compare, comparison_file
from .configure import generate_config, generate_scheme, take_config
from .outcome import Outcome
from .prune import prune
from .shrunk_models import shrunk_models
from .tune_blocks import finetune_blocks

RATE_FIELDS = {
    *("attention", "linear", "count", "grid", "random", "targets"),
    *("granularity", "attention_granularity", "structured", "uniform", "multiple"),
}
"""A recipe that sets one of these makes its own configurations; otherwise a `conf.json` that is there is taken."""

BEST: dict[str, Any] = {"criterion": "obs", "trainer": "joint"}
"""What ``compose run`` takes where its recipe says nothing: the way that measured best (README, docs/decisions)."""
CLASSIC: dict[str, Any] = {
    "criterion": "l1",
    "trainer": "distill",
    "dead_columns": False,
    "sweep": False,
    "block_levels": ["module"],
}
"""The original recipe: magnitudes, and every pruned module by itself distilled by gradients."""


def with_best(recipe: Recipe) -> Recipe:
    """The recipe with :data:`BEST` for everything of it that nobody has said."""
    unsaid = {name: value for name, value in BEST.items() if name not in recipe.model_fields_set}
    return recipe.model_copy(update=unsaid)


def run(recipe: Given, *, force: bool = False, progress: Progress = SILENT) -> Outcome:
    """All steps of one recipe, from ``conf.json`` to ``report.html``.

    A recipe with wishes (:mod:`composer.choosing.wishes`) asks for a family of small models, not for a comparison: its
    configurations are chosen, no baselines are trained, and the models are shrunk, evaluated, timed and drawn.

    Raises:
        RecipeError: wishes and rates in one recipe, or single weights to be chosen without a wish.
        ModelError: models that are to be shrunk, and are none of transformers.
    """
    space = Workspace.of(recipe)
    wished = _is_wished(space.recipe)
    if space.recipe.unstructured and not space.recipe.wishes_anything:
        raise RecipeError("unstructured: says what may go for a wish, and nothing is wished; give --keep-parameters")
    if wished and (both := sorted(RATE_FIELDS & space.recipe.model_fields_set)):
        raise RecipeError(f"{both[0].replace('_', '-')}: not together with wishes, which say what goes; leave one out")
    if _shrinks(space.recipe):
        from ..shrinking.plan import check_folder  # here, since it loads torch

        check_folder(space.base)  # before all that takes long
    space.folder.mkdir(parents=True, exist_ok=True)
    if space.recipe.config:
        take_config(space, space.recipe.config, force=force)
    elif wished:
        choose(space, force=force, progress=progress)
    elif force or not space.conf.is_file() or RATE_FIELDS & space.recipe.model_fields_set:
        generate_config(space, force=force)
    generate_scheme(space, force=force)
    prune(space, force=force, progress=progress)
    finetune_blocks(space, force=force, progress=progress)
    for i in range(len(space.scheme().roots)):
        build_model(space, i, force=force)
    if not _shrinks(space.recipe):
        return compare(space, train=not wished, force=force, progress=progress)
    fresh = not wished and compare(space, force=force, progress=progress).fresh
    small = shrunk_models(space, force=force, progress=progress)
    told = compare(space, train=False, small=small, progress=progress)
    from ..report.family import draw  # here, since it loads what draws

    picture = space.folder / "family.png"
    draw(small, space.task.main_metric, picture)
    return Outcome(told.output, fresh or told.fresh, {**told.summary, "shrunk": small, "picture": str(picture)})


def _is_wished(recipe: Recipe) -> bool:
    """Whether configurations are chosen by wishes; a file of configurations wins over them."""
    return recipe.wishes_anything and not recipe.config


def _shrinks(recipe: Recipe) -> bool:
    """Whether models end really smaller: who wishes for speed or size wants that, unless the recipe says no."""
    return recipe.shrink or (_is_wished(recipe) and "shrink" not in recipe.model_fields_set)


def plan(recipe: Given) -> list[dict[str, Any]]:
    """The steps that :func:`run` would take: name, what it does, whether its output is there already."""
    space = Workspace.of(recipe)
    n = len(space.scheme().roots) if space.conf_prune.is_file() else "all"
    composed = space.built_model(n - 1 if isinstance(n, int) else 0)
    wished, what = _is_wished(space.recipe), "heads and neurons"
    what += ", single weights" if space.recipe.unstructured else ""
    rows = [
        ("choose", f"{what} for every wish, {space.conf}", space.conf)
        if wished
        else ("generate-config", f"rates to {space.conf}", space.conf),
        ("generate-scheme", f"the graph, {space.conf_prune}", space.conf_prune),
        ("prune", f"every variant once, {space.pruned}", space.pruned),
        ("finetune --level block", f"every block once, {space.finetuned}", space.finetuned),
        (
            "build-model",
            f"compose {n} models, {space.folder / 'models'}",
            composed,
        ),
        (
            "compare",
            "composed models and the dense model, measured"
            if wished
            else "baselines, composed models and the dense model, fine-tuned and measured",
            comparison_file(space),
        ),
        ("report", f"{space.folder / 'report.html'}", space.folder / "report.html"),
    ]
    if _shrinks(space.recipe):
        rows.append(
            ("shrink", f"{n} small models, evaluated and timed, {space.folder / 'models'}", space.result_named("speed"))
        )
    return [{"step": name, "does": does, "done": output.exists()} for name, does, output in rows]


def demo_recipe(folder: Path, given: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of ``compose demo``: embedded model and corpus, twelve configurations, about two minutes."""
    import yaml

    path = Path(__file__).parents[1] / "demo" / "recipe.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return load_recipe(None, merged(merged(content, given or {}), {"folder": str(folder)}), file=False)
