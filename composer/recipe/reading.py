"""Reading ``compose.yaml`` and laying what was given over it; each mistake in our words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import RecipeError, did_you_mean, shown
from ..files.jsonfile import read_text
from .options import kebab
from .parts import BlockOptions, ModelOptions, MovementOptions, TimeOptions
from .whole import RECIPE_FILE, Recipe

OPTION = re.compile(r"[\w-]+")
"""What the name of an option looks like."""


def load_recipe(path: Path | None = None, given: Mapping[str, Any] | None = None, *, file: bool = True) -> Recipe:
    """Read a recipe file and lay ``given`` over it (nested mappings are merged; None is not given).

    Args:
        path: the file; None takes ``compose.yaml`` of the current folder where there is one.
        given: field -> value, as ``{"seed": 1, "finetune": {"steps": 300}}``.
        file: False reads no file at all.

    Raises:
        RecipeError: unreadable YAML, unknown keys, values that are not allowed; all of them at once.
    """
    source = path or (Path(RECIPE_FILE) if file and Path(RECIPE_FILE).is_file() else None)
    content, flags = _normal(_read_yaml(source) if source else {}), _normal(given or {})
    ours, theirs = flags.get("finetune"), content.get("finetune")
    if isinstance(ours, dict) and isinstance(theirs, dict) and "epochs" in ours and "steps" not in ours:
        theirs.pop("steps", None)  # the file's steps would win over the epochs just given
    try:
        return Recipe.model_validate(_merged(content, flags))
    except ValidationError as bad:
        # What is unsaid and goes by a value that is wrong is no second mistake.
        mistakes = [e for e in bad.errors() if e["type"] != "default_factory_not_called"]
        raise RecipeError(
            [_problem(e, "options" if _among(e["loc"], flags) else str(source)) for e in mistakes]
        ) from None


def _among(loc: tuple[Any, ...], flags: dict[str, Any]) -> bool:
    """Whether the value at ``loc`` was given as a flag, not by the file."""
    for part in loc:
        if not isinstance(flags, dict):
            break
        name = str(part).replace("-", "_")
        if name not in flags:
            return False
        flags = flags[name]
    return True


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``, nested mappings merged; keys get underscores."""
    return _merged(_normal(below), _normal(above))


def _read_yaml(path: Path) -> dict[str, Any]:
    """The options in a file, as they are written; an empty file has none."""
    import yaml

    text = read_text(path, RecipeError)
    try:
        content, twice = yaml.safe_load(text), list(_given_twice(yaml.compose(text, Loader=yaml.SafeLoader)))
    except yaml.YAMLError as bad:
        mark = getattr(bad, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{path}: {place}not valid YAML: {_reason(bad)}") from None
    if twice:
        raise RecipeError([f"{path}: {problem}" for problem in twice])
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: got {type(content).__name__}; allowed: a mapping of options to values")
    return content


def _reason(bad: Any) -> str:
    """What YAML found wrong, in a line; not every one of its errors has a problem by itself."""
    return getattr(bad, "problem", None) or str(bad).splitlines()[0]


def _given_twice(node: Any) -> Iterator[str]:
    """Keys that stand twice in one mapping, however they are written; YAML would take the last."""
    pairs = getattr(node, "value", None)
    if not isinstance(pairs, list):
        return
    seen: set[str] = set()
    for item in pairs:
        key, value = item if isinstance(item, tuple) else (None, item)
        name = str(key.value).replace("-", "_") if key else ""
        if key and name in seen:
            yield f"line {key.start_mark.line + 1}: key {kebab(name)!r} is given twice; give it once"
        seen.add(name)
        yield from _given_twice(value)


def _normal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Keys with underscores, nested mappings too; None is left out: what nobody said must not win over a file.

    Paths of modules, as in ``movement.rules``, stay as they are.
    """
    return {
        str(key).replace("-", "_") if OPTION.fullmatch(str(key)) else str(key): _normal(value)
        if isinstance(value, Mapping)
        else value
        for key, value in content.items()
        if value is not None
    }


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """See :func:`merged`; both have their keys with underscores."""
    result = dict(below)
    for key, value in above.items():
        held = result.get(key)
        result[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return result


def _problem(error: ErrorDetails, where: str) -> str:
    """One of pydantic's errors as a line in our words: the place as a user writes it, what was got, what is allowed."""
    place = ".".join(kebab(str(part)) if isinstance(part, str) else str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key {place!r}{did_you_mean(place.split('.')[-1], _known(error['loc']))}"
    return f"{where}: {place}: got {shown(error['input'])}; {error['msg'][0].lower()}{error['msg'][1:]}"


def _known(loc: tuple[Any, ...]) -> list[str]:
    """The options that could stand at ``loc``: of the recipe, or of the part of it that ``loc`` leads into."""
    parts: dict[str, type[BaseModel]] = {
        "block": BlockOptions,
        "finetune": ModelOptions,
        "movement": MovementOptions,
        "time": TimeOptions,
    }
    part = parts.get(str(loc[0]), Recipe) if len(loc) > 1 else Recipe
    return [kebab(name) for name in part.model_fields]
