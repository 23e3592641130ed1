"""What is wrong in a file of configurations, in words: where it stands, what was got and what is allowed there."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ..errors import did_you_mean
from .shapes import ALLOWED as ALLOWED_SHAPES

ALLOWED_RATE = "a number with 0 <= rate <= 1"
FIELDS = {"rate": ALLOWED_RATE, "granularity": ALLOWED_SHAPES, "criterion": "the name of a criterion"}
"""Field of an entry said in full -> what it may hold."""


def problems_of(bad: ValidationError) -> list[str]:
    """Each mistake that pydantic found, with its place in the file."""
    problems = []
    for error in bad.errors():
        # A value's place goes on with the tag of what it was read as, and then its field.
        path, field = error["loc"][:3], error["loc"][4:]
        if field and error["type"] != "missing":
            path = (*path, field[0])
        first, *rest = path
        name = first if str(first).isidentifier() else repr(first)
        place = f"{name}{''.join(f'[{part!r}]' for part in rest)}"
        allowed = _allowed_in_full(error, str(field[0])) if field else _allowed(error)
        problems.append(f"{place}: got {shown_value(error['input'])}; allowed: {allowed}")
    return problems


def _allowed(error: Any) -> str:
    kind, depth = error["type"], len(error["loc"])
    if kind == "missing":
        return "the list 'configurations' must be given"
    if kind == "extra_forbidden":
        return "only 'model' and 'configurations'" + did_you_mean(str(error["loc"][0]), ["model", "configurations"])
    if error["loc"][0] == "model":
        return "the path of a model folder, as text"
    return {1: "a list with at least one configuration", 2: "an object of target paths and rates"}.get(
        depth, ALLOWED_RATE
    )


def _allowed_in_full(error: Any, field: str) -> str:
    """What a field of an entry said in full may hold."""
    if error["type"] == "extra_forbidden":
        return "only 'rate', 'granularity' and 'criterion'" + did_you_mean(field, FIELDS)
    if error["type"] == "granularity":
        return str(error["ctx"]["line"].partition("allowed: ")[2])
    return FIELDS[field]


def shown_value(value: Any) -> str:
    """A value as a message shows it, cut where it is long."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
