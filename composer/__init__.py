"""Composer: prune and fine-tune one Transformer into many versions for far less than the price of each alone.

The steps of the command line as functions, in the order of the work::

    recipe = composer.load_recipe(given={"model": "base", "data": "multi30k"})
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    composer.finetune_blocks(recipe)
    composer.build_model(recipe, 0)
    composer.finetune_model(recipe, "composed", 0)
    composer.evaluate(recipe, ["models/0-finetuned"])
    composer.compare(recipe)

Nothing heavy is imported until a function is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "ComposerError": "errors",
    "InputError": "errors",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "download": "models.hub",
    "generate_config": "steps.configure",
    "generate_scheme": "steps.configure",
    "prune": "steps.prune",
    "finetune_blocks": "steps.tune_blocks",
    "build_model": "steps.build_model",
    "finetune_model": "steps.tune_model",
    "evaluate": "steps.evaluate",
    "predict": "steps.evaluate",
    "compare": "steps.compare",
    "run": "steps.run",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
