"""Composer: many pruned versions of one Transformer, for less work than making each one separately.

The commands are functions, in the order of the work::

    recipe = composer.load_recipe(given={"model": "base", "data": "multi30k"})
    with composer.open(recipe) as work:
        composer.generate_config(work)
        composer.generate_scheme(work)
        composer.prune(work)
        composer.finetune_blocks(work)
        composer.build_model(work, 0)
        composer.finetune_model(work, "composed", 0)
        composer.evaluate(work, ["models/0-finetuned"])
        composer.compare(work)

Every step takes a :class:`Recipe`, or a :class:`Workspace` that :func:`open` made of one: steps that are given the
same workspace share what one of them has loaded; a step that is given a recipe keeps nothing. Every step leaves files
and gives back an :class:`Outcome`; one whose output is there already, made from the same inputs, does nothing. What the
user can mend is an :class:`InputError`, whose kinds are in ``composer.errors``.

In a training script of your own, with no recipe at all, a pruned model keeps its zeros (docs/learning.md)::

    Trainer(model=model, args=args, train_dataset=data, callbacks=[composer.KeepSparse()]).train()

Nothing heavy is imported until a function is called, or a callback is named. Public are the names of this module, of
``composer.errors`` and, for packages that bring Composer something of their own, of ``composer.plugin``; all other
modules are internal and may move. A tutorial is in docs/python.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "ComposerError",
    "InputError",
    "KeepSparse",
    "LearnMasks",
    "Outcome",
    "Progress",
    "Recipe",
    "SparseTrainer",
    "Workspace",
    "__version__",
    "build_model",
    "choose",
    "compare",
    "demo_recipe",
    "distill_loss",
    "download",
    "evaluate",
    "export",
    "finetune_blocks",
    "finetune_model",
    "generate_config",
    "generate_scheme",
    "load",
    "load_recipe",
    "mask_adapters",
    "merge",
    "open",
    "plan",
    "predict",
    "prune",
    "run",
    "show_model",
    "show_scheme",
    "shrink",
    "simplify",
    "sparse",
    "speed",
]

if TYPE_CHECKING:
    from .errors import ComposerError, InputError
    from .forecast.forecast import forecast as plan
    from .models.hub import download
    from .progress import Progress
    from .recipe import Recipe, load_recipe
    from .steps.build_model import build_model
    from .steps.choose import choose
    from .steps.compare import compare
    from .steps.configure import generate_config, generate_scheme
    from .steps.evaluate import evaluate, predict
    from .steps.export import export
    from .steps.merge import merge
    from .steps.outcome import Outcome
    from .steps.prune import prune
    from .steps.run import demo_recipe, run
    from .steps.show import show_model, show_scheme
    from .steps.shrink import load, shrink
    from .steps.simplify import simplify
    from .steps.sparse_trainer import SparseTrainer
    from .steps.speed import speed
    from .steps.tune_blocks import finetune_blocks
    from .steps.tune_model import finetune_model
    from .training.adapters import mask_adapters
    from .training.callbacks.keep_sparse import KeepSparse
    from .training.callbacks.learn_masks import LearnMasks
    from .training.callbacks.loop import sparse
    from .training.callbacks.teacher import distill_loss
    from .workspace import Workspace, open
else:
    _WHERE = {
        "ComposerError": "errors:ComposerError",
        "InputError": "errors:InputError",
        "KeepSparse": "training.callbacks.keep_sparse:KeepSparse",
        "LearnMasks": "training.callbacks.learn_masks:LearnMasks",
        "Outcome": "steps.outcome:Outcome",
        "Progress": "progress:Progress",
        "Recipe": "recipe:Recipe",
        "SparseTrainer": "steps.sparse_trainer:SparseTrainer",
        "Workspace": "workspace:Workspace",
        "build_model": "steps.build_model:build_model",
        "choose": "steps.choose:choose",
        "compare": "steps.compare:compare",
        "demo_recipe": "steps.run:demo_recipe",
        "distill_loss": "training.callbacks.teacher:distill_loss",
        "download": "models.hub:download",
        "evaluate": "steps.evaluate:evaluate",
        "export": "steps.export:export",
        "finetune_blocks": "steps.tune_blocks:finetune_blocks",
        "finetune_model": "steps.tune_model:finetune_model",
        "generate_config": "steps.configure:generate_config",
        "generate_scheme": "steps.configure:generate_scheme",
        "load": "steps.shrink:load",
        "load_recipe": "recipe:load_recipe",
        "mask_adapters": "training.adapters:mask_adapters",
        "merge": "steps.merge:merge",
        "open": "workspace:open",
        "plan": "forecast.forecast:forecast",
        "predict": "steps.evaluate:predict",
        "prune": "steps.prune:prune",
        "run": "steps.run:run",
        "show_model": "steps.show:show_model",
        "show_scheme": "steps.show:show_scheme",
        "shrink": "steps.shrink:shrink",
        "simplify": "steps.simplify:simplify",
        "sparse": "training.callbacks.loop:sparse",
        "speed": "steps.speed:speed",
    }
    """Public name -> module and name there: what type checkers read above, for everybody else on first use."""

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, there = _WHERE[name].partition(":")
        return getattr(import_module(f".{module}", __name__), there)


def __dir__() -> list[str]:
    return sorted(__all__)
