"""Rules of learnt masks: path -> rate, granularity and schedule, as a dictionary or a YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, did_you_mean, shown
from ...files.jsonfile import read_text
from ...scheme.shapes import Shape, default_shape, parse_shape
from ...tensors.learnt_scores import COOL_DOWN, WARM_UP, risen

if TYPE_CHECKING:
    from ...scheme.layout import Layout, Target

KEYS = ("rate", "granularity", "warm-up", "cool-down")

Rules = Mapping[str, Mapping[str, Any]]
"""Glob, or ``re:`` and a regular expression -> ``{"rate": 0.7, "granularity": "neuron", "warm-up": 0.1, …}``."""


@dataclass(frozen=True)
class Ruled:
    """One part of the model whose masks are learnt.

    Attributes:
        rate: share of its units that is masked at the end.
        warm_up, cool_down: shares of the training before anything is masked, and at the full rate.
    """

    part: Target
    shape: Shape
    rate: float
    warm_up: float = WARM_UP
    cool_down: float = COOL_DOWN

    def rate_at(self, way: float) -> float:
        """The share that is masked after ``way`` (0 to 1) of the training.

        >>> rule = Ruled(None, None, 0.5, warm_up=0.0, cool_down=0.5)
        >>> rule.rate_at(0.0), rule.rate_at(0.25), rule.rate_at(0.5)
        (0.0, 0.4375, 0.5)
        """
        return self.rate * risen(way, self.warm_up, self.cool_down)


def read_rules(given: Rules | str | Path, layout: Layout) -> list[Ruled]:
    """The parts of a model that the rules name, in execution order.

    Raises:
        ConfigError: rules that match nothing (with near names), two that name the same target, unknown keys, rates or
            schedules that make no sense, granularities that do not fit; all of them at once.
    """
    rules = _of_file(Path(given)) if isinstance(given, (str, Path)) else given
    problems = [problem for name, said in rules.items() for problem in _wrong(name, said)]
    if problems or not rules:
        raise ConfigError(problems or "LearnMasks: no rule is given; allowed: {path: {'rate': 0.7}}")
    ruled: dict[str, tuple[str, Ruled]] = {}
    for name, said in rules.items():
        paths = [path for path in layout.paths if _matches(name, path)]
        if not paths:
            problems.append(f"rule {name!r}: matches no target{did_you_mean(name, layout.paths, most=2)}")
        for path in paths:
            if path in ruled:
                problems.append(f"rules {ruled[path][0]!r} and {name!r}: both name {path}; one must go")
                continue
            found = _ruled(path, said, layout)
            if isinstance(found, str):
                problems.append(f"rule {name!r}: {path}: {found}")
            else:
                ruled[path] = name, found
    problems += _covered_twice({path: one for path, (_, one) in ruled.items()})
    if problems:
        raise ConfigError(problems[:5])
    return [ruled[path][1] for path in layout.paths if path in ruled]


def _of_file(path: Path) -> Rules:
    import yaml

    try:
        content = yaml.safe_load(read_text(path, ConfigError))
    except yaml.YAMLError as bad:
        raise ConfigError(f"{path}: not valid YAML: {str(bad).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: got {shown(content)}; allowed: a mapping of paths to rules")
    return content


def _matches(name: str, path: str) -> bool:
    return bool(re.fullmatch(name[3:], path)) if name.startswith("re:") else fnmatchcase(path, name)


def _wrong(name: str, said: Any) -> list[str]:
    """What is wrong with one rule, whatever the model."""
    if not isinstance(said, Mapping) or "rate" not in said:
        return [f"rule {name!r}: got {shown(said)}; allowed: {{'rate': 0.7}}, and {', '.join(KEYS[1:])}"]
    problems = [f"rule {name!r}: unknown key {key!r}{did_you_mean(str(key), KEYS)}" for key in said if key not in KEYS]
    shares = {key: said.get(key, default) for key, default in zip(KEYS[2:], (WARM_UP, COOL_DOWN), strict=True)}
    for key, value in {"rate": said["rate"], **shares}.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            problems.append(f"rule {name!r}: {key}: got {shown(value)}; allowed: from 0 to 1")
    if not problems and sum(shares.values()) > 1:
        problems.append(f"rule {name!r}: warm-up and cool-down are {sum(shares.values()):g} of the training; at most 1")
    if name.startswith("re:"):
        try:
            re.compile(name[3:])
        except re.error as bad:
            problems.append(f"rule {name!r}: no regular expression: {bad}")
    return problems


def _ruled(path: str, said: Mapping[str, Any], layout: Layout) -> Ruled | str:
    """The rule for one target, or why it cannot be."""
    target, rate = layout.target(path), float(said["rate"])
    shape = parse_shape(str(said["granularity"])) if "granularity" in said else default_shape(target)
    if shape.kind in ("global", "stack-head"):
        return f"granularity {str(shape)!r} ranks over several targets; masks are learnt for each by itself"
    if problem := shape.problem(layout, path, rate):
        return problem
    parts = shape.parts(layout, path)
    if len(parts) > 1:
        return f"granularity {str(shape)!r} takes the {len(parts)} projections apart; allowed here: head"
    return Ruled(parts[0], shape, rate, said.get("warm-up", WARM_UP), said.get("cool-down", COOL_DOWN))


def _covered_twice(ruled: Mapping[str, Ruled]) -> list[str]:
    """Targets whose weights go with the neurons of another rule's."""
    whole = {p.path: path for path, one in ruled.items() if one.shape.kind == "neuron" for p in one.part.projections}
    return [
        f"rule of {path}: its weights go with the neurons of {whole[path]} already"
        for path in ruled
        if whole.get(path, path) != path
    ]
