"""Rules of learnt masks: path -> rate, granularity and schedule, as a dictionary or a YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, did_you_mean, shown
from ..files.jsonfile import read_text
from .globs import nearly
from .layout import Target
from .schedule import COOL_DOWN, WARM_UP, risen
from .shapes import Shape, default_shape, parse_shape

if TYPE_CHECKING:
    from .layout import Layout

Amount = Literal["rate", "penalty"]
"""What a rule says of a part: the share that is masked at the end, or the penalty on what is kept."""
KEYS = ("granularity", "warm-up", "cool-down")
"""What else a rule can say."""

Rules = Mapping[str, Mapping[str, Any]]
"""Glob, or ``re:`` and a regular expression -> ``{"rate": 0.7, "granularity": "neuron", "warm-up": 0.1, …}``."""


@dataclass(frozen=True)
class Ruled:
    """One part of the model whose masks are learnt.

    Attributes:
        amount: share of its units that is masked at the end, or the penalty on what is kept; None: nothing ever is.
        warm_up, cool_down: shares of the training before more is masked than at its begin, and at the full amount.
        begin: the share that is masked at the begin: of a dense model nothing.
    """

    part: Target
    shape: Shape
    amount: float | None
    warm_up: float = WARM_UP
    cool_down: float = COOL_DOWN
    begin: float = 0.0

    def at(self, way: float) -> float | None:
        """The amount after ``way`` (0 to 1) of the training.

        >>> rule = Ruled(None, None, 0.5, warm_up=0.0, cool_down=0.5)
        >>> rule.at(0.0), rule.at(0.25), rule.at(0.5)
        (0.0, 0.4375, 0.5)
        """
        if self.amount is None:
            return None
        return self.begin + (self.amount - self.begin) * risen(way, self.warm_up, self.cool_down)


def read_rules(
    given: Rules | str | Path, layout: Layout, amount: Amount = "rate", place: str = "LearnMasks"
) -> list[Ruled]:
    """The parts of a model that the rules name, in execution order.

    Heads take the columns of the projection that reads them along, on the same mask, unless a rule names that
    projection.

    Args:
        amount: what each rule must say.
        place: where the rules stand, for messages.

    Raises:
        ConfigError: rules that match nothing (with near names), two that name the same target, unknown keys, rates or
            schedules that make no sense, granularities that do not fit; all of them at once.
    """
    rules = {path: _plain(said) for path, said in _rules(given).items()}
    problems = [problem for name, said in rules.items() for problem in _wrong(name, said, amount)]
    if not rules:
        problems = [f"no rule is given; allowed: {{path: {{{amount!r}: 0.7}}}}"]
    if problems:
        raise ConfigError([f"{place}: {problem}" for problem in problems[:5]])
    ruled: dict[str, tuple[str, list[Ruled]]] = {}
    for name, said in rules.items():
        paths = [path for path in layout.paths if _matches(name, path)]
        if not paths:
            problems.append(f"rule {name!r}: matches no target{nearly(name, layout)}")
        for path in paths:
            if path in ruled:
                problems.append(f"rules {ruled[path][0]!r} and {name!r}: both name {path}; one must go")
                continue
            found = _ruled(path, said, layout, amount)
            if isinstance(found, str):
                problems.append(f"rule {name!r}: {path}: {found}")
            else:
                ruled[path] = name, found
    problems += _covered_twice({path: ones for path, (_, ones) in ruled.items()})
    if problems:
        raise ConfigError([f"{place}: {problem}" for problem in problems[:5]])
    return [_whole(one, ruled, layout) for path in layout.paths if path in ruled for one in ruled[path][1]]


def _rules(given: Rules | str | Path) -> Rules:
    file = isinstance(given, (str, Path))
    rules = _of_file(Path(str(given))) if file else given
    if not isinstance(rules, Mapping):
        place = given if file else "LearnMasks: rules"
        raise ConfigError(f"{place}: got {shown(rules)}; allowed: a mapping of paths to rules")
    return rules


def _plain(said: Any) -> Any:
    """One rule with the keys as they are written in YAML; a recipe has underscores in them."""
    return {str(key).replace("_", "-"): value for key, value in said.items()} if isinstance(said, Mapping) else said


def _of_file(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(read_text(path, ConfigError))
    except yaml.YAMLError as bad:
        raise ConfigError(f"{path}: not valid YAML: {str(bad).splitlines()[0]}") from None


def _matches(name: str, path: str) -> bool:
    return bool(re.fullmatch(name[3:], path)) if name.startswith("re:") else fnmatchcase(path, name)


def _wrong(name: str, said: Any, amount: Amount) -> list[str]:
    """What is wrong with one rule, whatever the model."""
    if isinstance(said, Mapping) and amount == "penalty" and "rate" in said:
        return [f"rule {name!r}: got rate, which 'sigmoid' and 'l0' find; allowed: {{'penalty': 100}}"]
    if not isinstance(said, Mapping) or amount not in said:
        return [f"rule {name!r}: got {shown(said)}; allowed: {{{amount!r}: 0.7}}, and {', '.join(KEYS)}"]
    keys = (amount, *KEYS)
    problems = [f"rule {name!r}: unknown key {key!r}{did_you_mean(str(key), keys)}" for key in said if key not in keys]
    shares = {key: said.get(key, default) for key, default in zip(KEYS[1:], (WARM_UP, COOL_DOWN), strict=True)}
    for key, value in {amount: said[amount], **shares}.items():
        most = 1 if key != "penalty" else float("inf")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
            allowed = "from 0 to 1" if key != "penalty" else "0 and above"
            problems.append(f"rule {name!r}: {key}: got {shown(value)}; allowed: {allowed}")
    if not problems and sum(shares.values()) > 1:
        problems.append(f"rule {name!r}: warm-up and cool-down are {sum(shares.values()):g} of the training; at most 1")
    if "granularity" in said:
        try:
            parse_shape(str(said["granularity"]))
        except ConfigError as bad:
            problems.append(f"rule {name!r}: {bad}")
    if name.startswith("re:"):
        try:
            re.compile(name[3:])
        except re.error as bad:
            problems.append(f"rule {name!r}: no regular expression: {bad}")
    return problems


def _ruled(path: str, said: Mapping[str, Any], layout: Layout, amount: Amount) -> list[Ruled] | str:
    """The rule for the parts of one target, or why it cannot be."""
    target, much = layout.target(path), float(said[amount])
    shape = parse_shape(str(said["granularity"])) if "granularity" in said else default_shape(target)
    if shape.kind in ("global", "stack-head"):
        return f"granularity {str(shape)!r} ranks over several targets; masks are learnt for each by itself"
    if amount == "penalty" and shape.kind in ("per-row", "N:M"):
        return f"granularity {str(shape)!r} counts within rows; a penalty does not; allowed: unstructured, or any unit"
    if problem := shape.problem(layout, path, much if amount == "rate" else 0.0):
        return problem
    when = said.get("warm-up", WARM_UP), said.get("cool-down", COOL_DOWN)
    return [Ruled(part, shape, much, *when) for part in shape.parts(layout, path)]


def _whole(one: Ruled, ruled: Mapping[str, Any], layout: Layout) -> Ruled:
    """Heads with the columns that read them; anything else as it is."""
    if one.part.kind != "attention":
        return one
    try:
        reader = layout.out_projection(one.part.path)
    except (KeyError, IndexError):  # a model of somebody's own has none that is known
        return one
    if reader.path in ruled or reader.in_features % one.part.heads:
        return one
    return replace(one, part=Target(one.part.path, "feed_forward", (*one.part.projections, reader), one.part.heads))


def _covered_twice(ruled: Mapping[str, Sequence[Ruled]]) -> list[str]:
    """Targets whose weights go with the neurons of another rule's."""
    neurons = {path: ones[0].part for path, ones in ruled.items() if ones[0].shape.kind == "neuron"}
    whole = {p.path: path for path, part in neurons.items() for p in part.projections}
    return [
        f"rule of {path}: its weights go with the neurons of {whole[path]} already"
        for path in ruled
        if whole.get(path, path) != path
    ]
