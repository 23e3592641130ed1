"""What every command does first: lay the flags over the recipe, and open the console."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .console import Console
from .options import Common, Flags, Talk

if TYPE_CHECKING:
    from composer.recipe import Recipe


@contextmanager
def talking(talk: Talk) -> Iterator[Console]:
    """The console of a command."""
    # A launcher such as torchrun starts several processes; one of them speaks.
    speaks = os.environ.get("RANK", "0") == "0"
    console = Console(quiet=talk.quiet or not speaks, as_json=talk.json, speaks=speaks)
    with console.guarded():
        yield console


@contextmanager
def session(common: Common, *flags: Flags, **fields: Any) -> Iterator[tuple[Recipe, Console]]:
    """The recipe with ``flags`` and single fields laid over it, and the console.

    Raises:
        RecipeError: an unreadable recipe, or values that are not allowed; all of them at once.
    """
    from composer.recipe import load_recipe

    with talking(common) as console:
        given = merge(*flags, **fields, new_head=common.new_head)
        yield epochs_win(load_recipe(common.recipe, given), given), console


def merge(*flags: Flags, **fields: Any) -> dict[str, Any]:
    """What was given as flags, by field of the recipe."""
    for part in flags:
        fields |= {name: value for name, value in part.given().items() if value is not None or name not in fields}
    return fields


def epochs_win(recipe: Recipe, given: dict[str, Any]) -> Recipe:
    """Drop the file's steps where epochs were given as a flag: a recipe's steps win over its epochs.

    Raises:
        RecipeError: both were given as flags.
    """
    from composer.errors import RecipeError

    part = given.get("finetune") or {}
    if part.get("epochs") is None:
        return recipe
    if part.get("steps") is not None:
        raise RecipeError("--steps, --epochs: got both; allowed: one of them")
    return recipe.model_copy(update={"finetune": recipe.finetune.model_copy(update={"steps": None})})
