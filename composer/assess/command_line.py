"""The command line that repeats an assessment, as the page shows it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from ..evaluation.suites.command_line import suite_words
from ..recipe import Recipe
from ..tasks.data.options import DataOptions
from .settings import Settings

FLAGS = {
    **{name: name for name in ("rates", "criteria", "granularities", "sparsity")},
    "calibrations": "calibration",
    "evaluations": "evaluation",
    "beside": "beside",
}
"""Settings by the names of their flags."""
RECIPE = (*DataOptions.model_fields, "targets", "calibration_size", "memory", "device")
"""Fields of a recipe that an assessment looks at."""


def command(recipe: Recipe, settings: Settings, folder: Path, model: str) -> str:
    """The shortest line that asks for the same; what a recipe file says stands in it too.

    >>> command(Recipe(data="c4", seed=1), Settings(sparsity=0.25), Path("a"), "base")
    'compose assess base --sparsity 0.25 --data c4 --seed 1 -o a'
    """
    words = ["compose", "assess", model, *_settings(settings), *_recipe(recipe), "-o", str(folder)]
    return shlex.join(words)


def _settings(settings: Settings) -> Iterator[str]:
    usual = Settings(calibrations=settings.calibrations)
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in FLAGS and (value != getattr(Settings(), field.name)):
            yield from (f"--{FLAGS[field.name]}", *_words(value))
    if settings.matrix_rates and settings.rates == usual.rates:
        yield from ("--rates", *_words(settings.matrix_rates))
    yield from suite_words(settings.asked.suites, settings.asked.tasks, settings.suite_options, shared=False)
    if not settings.repair:
        yield "--no-repair"
    if settings.parts != usual.parts:
        yield from ("--parts", *settings.parts)


def _recipe(recipe: Recipe) -> Iterator[str]:
    for name in RECIPE:
        value = getattr(recipe, name)
        if name in recipe.model_fields_set and value not in (None, []):
            yield from (f"--{name.replace('_', '-')}", *_words(value))


def _words(value: object) -> list[str]:
    return [str(one) for one in (value if isinstance(value, (list, tuple)) else [value])]
