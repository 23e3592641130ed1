"""Pruning configurations: the file ``conf.json``, checked all at once, and what it says of each target.

A *configuration* maps targets to rates. Keys are paths of targets or globs over them; the more specific
key wins. What a file says is resolved against a :class:`~composer.layout.Layout`, so no model is loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import ConfigError, did_you_mean
from .jsonfile import read_json, write_json
from .layout import Layout

Rate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)]
Rates = dict[str, float]
"""Target path -> rate in (0, 1); targets that stay dense are absent."""

ALLOWED_RATE = "a number with 0 <= rate < 1"


class Configurations(BaseModel):
    """The content of ``conf.json`` as written: the base model's folder and N maps of keys to rates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)] | None = None
    configurations: Annotated[list[dict[str, Rate]], Field(min_length=1)]


def read_configurations(path: Path) -> Configurations:
    """Read ``conf.json``: an object with ``model`` and ``configurations``, or the bare list of maps.

    Raises:
        ConfigError: one problem per mistake, each with its place in the file.
    """
    problems: list[str] = []
    raw = read_json(path, ConfigError, problems)
    if isinstance(raw, list):
        raw = {"configurations": raw}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: got {_shown(raw)}; allowed: an object with 'configurations', or a list of configurations"
        )
    try:
        read = Configurations.model_validate(raw)
    except ValidationError as bad:
        problems += [f"{path}: {problem}" for problem in _problems(bad)]
    if problems:
        raise ConfigError(problems)
    return read


def write_configurations(path: Path, configurations: Configurations) -> None:
    """Write ``conf.json``, whole or not at all."""
    write_json(path, configurations.model_dump(exclude_none=True))


def check_rates(name: str, rates: Sequence[Any]) -> list[float]:
    """Check a list of rates given as an option; ``name`` stands in the message.

    Raises:
        ConfigError: one problem per value that is no rate, or an empty list.
    """
    if not rates:
        raise ConfigError(f"{name}: got an empty list; allowed: one or more rates, each {ALLOWED_RATE}")
    one = TypeAdapter(Rate)
    problems, good = [], []
    for i, rate in enumerate(rates):
        try:
            good.append(one.validate_python(rate))
        except ValidationError:
            problems.append(f"{name}[{i}]: got {_shown(rate)}; allowed: {ALLOWED_RATE}")
    if problems:
        raise ConfigError(problems)
    return good


def resolve(configurations: Configurations, layout: Layout, *, where: str = "conf.json") -> list[Rates]:
    """Say for each configuration which targets are pruned at which rate.

    Exact paths beat globs; of two globs the one with more literal characters wins; two equally specific
    keys that disagree are an error. A rate that removes no unit counts as 0, and 0 is left out.

    Raises:
        ConfigError: keys that match no target, or that contradict each other; all of them.
    """
    problems: list[str] = []
    resolved = []
    for i, given in enumerate(configurations.configurations):
        rates, bad = _resolve_one(given, layout)
        problems += [f"{where}: configurations[{i}]: {problem}" for problem in bad]
        resolved.append(rates)
    if problems:
        raise ConfigError(problems)
    return resolved


def match_targets(patterns: Iterable[str], layout: Layout, *, where: str) -> list[str]:
    """Targets that any of the globs name, in execution order; a glob that names none is an error."""
    patterns = list(patterns)
    problems = [_unknown(where, p, layout) for p in patterns if not any(fnmatchcase(t, p) for t in layout.paths)]
    if problems:
        raise ConfigError(problems)
    return [t for t in layout.paths if any(fnmatchcase(t, p) for p in patterns)]


def patterns(layout: Layout) -> list[str]:
    """The layout's targets as globs, numbers of layers replaced by stars; those that match most come first.

    >>> from .layout import Target
    >>> patterns(Layout("", tuple(Target(path, "linear", ()) for path in ("head", "h.0.fc", "h.1.fc")), ()))
    ['h.*.fc', 'head']
    """
    shapes = Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", path) for path in layout.paths)
    return [glob for glob, _ in shapes.most_common()]


def _resolve_one(given: Mapping[str, float], layout: Layout) -> tuple[Rates, list[str]]:
    matching: dict[str, list[str]] = {}  # target -> keys
    problems: list[str] = []
    for key in given:
        matches = [key] if key in layout else [t for t in layout.paths if fnmatchcase(t, key)]
        if not matches:
            problems.append(_unknown("key", key, layout))
        for target in matches:
            matching.setdefault(target, []).append(key)
    rates: Rates = {}
    for target in filter(matching.__contains__, layout.paths):
        most = max(_specificity(key, target) for key in matching[target])
        first, *others = [key for key in matching[target] if _specificity(key, target) == most]
        problems += [
            f"keys {first!r} ({given[first]}) and {key!r} ({given[key]}) are equally specific for "
            f"{target!r} and disagree; name the target itself"
            for key in others
            if given[key] != given[first]
        ]
        if layout.target(target).removed_units(given[first]) > 0:
            rates[target] = given[first]
    return rates, problems


def _specificity(key: str, target: str) -> float:
    """Literal characters of a glob; infinite for the path itself."""
    return float("inf") if key == target else float(sum(c not in "*?[]" for c in key))


def _unknown(where: str, key: str, layout: Layout) -> str:
    hint = did_you_mean(key, layout.paths, most=3)
    allowed = hint or f"; targets look like {layout.paths[0]!r}"
    return f"{where}: {key!r} matches no target of this {layout.family} model{allowed}"


def _problems(bad: ValidationError) -> list[str]:
    problems = []
    for error in bad.errors():
        first, *rest = error["loc"]
        name = first if str(first).isidentifier() else repr(first)
        place = f"{name}{''.join(f'[{part!r}]' for part in rest)}"
        problems.append(f"{place}: got {_shown(error['input'])}; allowed: {_allowed(error)}")
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


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
