"""Pruning configurations: the file ``conf.json``, checked all at once, and what it says of each target.

A *configuration* maps targets to rates. Keys are paths of targets or globs over them; the more specific
key wins. The path of a sublayer or layer with rate 1 makes it a no-op: all its heads and neurons go. What a file says
is resolved against a :class:`~composer.scheme.layout.Layout`, so no model is loaded.
A rate alone means the target's default granularity and the run's criterion; an object says it in full:
``{"rate": 0.5, "granularity": "2:4", "criterion": "wanda"}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from ..errors import ConfigError, InputError
from ..files.jsonfile import canonical, read_json, write_json
from .globs import no_target, specificity, targets_named
from .layout import Layout
from .mistakes import ALLOWED_RATE, problems_of, shown_value
from .shapes import default_shape, parse_shape, shape_of

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Rates = dict[str, float]
"""Target path -> rate in (0, 1]; targets that stay dense are absent."""


class Spec(BaseModel):
    """A rate said in full; what is None is the target's default granularity, or the run's criterion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: Rate
    granularity: str | None = None
    criterion: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("granularity")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(parse_shape(value))
        except ConfigError as bad:
            raise PydanticCustomError("granularity", "{line}", {"line": str(bad)}) from None

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        return {"rate": self.rate, **self.choice}

    @property
    def choice(self) -> dict[str, str]:
        """What it says beside the rate."""
        named = {"granularity": self.granularity, "criterion": self.criterion}
        return {name: value for name, value in named.items() if value is not None}

    def __str__(self) -> str:
        return canonical(self.model_dump())


Entry = Annotated[
    Annotated[Rate, Tag("rate")] | Annotated[Spec, Tag("full")],
    Discriminator(lambda value: "full" if isinstance(value, (Mapping, Spec)) else "rate"),
]
Assignment = Mapping[str, float | Spec]
"""Target path -> what is asked of it; targets that stay dense are absent. A plain rate where defaults say it all."""


class Configurations(BaseModel):
    """The content of ``conf.json`` as written: the base model's folder and N maps of keys to rates."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)] | None = None
    configurations: Annotated[list[dict[str, Entry]], Field(min_length=1)]


def read_configurations(path: Path, layout_of: Callable[[str | None], Layout] | None = None) -> Configurations:
    """Read ``conf.json``: an object with ``model`` and ``configurations``, or the bare list of maps.

    Args:
        layout_of: layout of the model that the file names (None: names none). Where the file has mistakes, keys that
            match no target are then reported with them; where it has none, :func:`resolve` finds these.

    Raises:
        ConfigError: one problem per mistake, each with its place in the file.
    """
    problems: list[str] = []
    raw = read_json(path, ConfigError, problems)
    if isinstance(raw, list):
        raw = {"configurations": raw}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: got {shown_value(raw)}; allowed: an object with 'configurations', or a list of configurations"
        )
    try:
        read = Configurations.model_validate(raw)
    except ValidationError as bad:
        problems += [f"{path}: {problem}" for problem in problems_of(bad)]
    if problems:
        raise ConfigError(problems + (_unknown_keys(path, raw, layout_of) if layout_of else []))
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
            problems.append(f"{name}[{i}]: got {shown_value(rate)}; allowed: {ALLOWED_RATE}")
    if problems:
        raise ConfigError(problems)
    return good


def resolve(configurations: Configurations, layout: Layout, *, where: str = "conf.json") -> list[Assignment]:
    """Say for each configuration which targets are pruned at which rate, and how where that is not the default.

    Exact paths beat globs; of two globs the one with more literal characters wins; two equally specific
    keys that disagree are an error. A rate that removes no unit counts as 0, and 0 is left out.

    Raises:
        ConfigError: keys that match no target or contradict each other, shapes that do not fit; all of them.
    """
    problems: list[str] = []
    resolved = []
    for i, given in enumerate(configurations.configurations):
        assigned, bad = _resolve_one(given, layout)
        problems += [f"{where}: configurations[{i}]: {problem}" for problem in bad]
        resolved.append(assigned)
    if problems:
        raise ConfigError(problems)
    return resolved


def _resolve_one(given: Assignment, layout: Layout) -> tuple[Assignment, list[str]]:
    matching: dict[str, dict[str, float | Spec]] = {}  # target -> key -> what it says of it
    problems: list[str] = []
    for key, said in given.items():
        whole = _whole(key, layout)
        matches: dict[str, float | Spec] = whole or dict.fromkeys(targets_named(key, layout), said)
        if not matches:
            problems.append(no_target("key", key, layout))
        if whole and said != 1:
            problems.append(f"key {key!r} names all that is inside, which goes whole or not; got {said}; allowed: 1")
        for target, entry in matches.items():
            matching.setdefault(target, {})[key] = entry
    chosen: dict[str, float | Spec] = {}
    for target in filter(matching.__contains__, layout.paths):
        entries = matching[target]
        most = max(specificity(key, target) for key in entries)
        first, *others = [key for key in entries if specificity(key, target) == most]
        problems += [
            f"keys {first!r} ({entries[first]}) and {key!r} ({entries[key]}) are equally specific for "
            f"{target!r} and disagree; name the target itself"
            for key in others
            if entries[key] != entries[first]
        ]
        chosen[target] = entries[first]
    problems += _follow_neurons(chosen, layout)
    settled: dict[str, float | Spec] = {}
    for target, said in chosen.items():
        spec = said if isinstance(said, Spec) else Spec(rate=said)
        shape = shape_of(spec.choice, layout.target(target))
        if problem := shape.problem(layout, target, spec.rate):
            problems.append(f"{target}: {problem}; got {said}")
        elif spec.rate and shape.removed_weights(layout, target, spec.rate) > 0:
            settled[target] = _settled(spec, target, layout)
    return settled, problems


def _settled(spec: Spec, target: str, layout: Layout) -> float | Spec:
    """``spec`` in its one way to be written: a plain rate where it says nothing but defaults."""
    default = default_shape(layout.target(target))
    shape = shape_of(spec.choice, layout.target(target))
    rate = shape.density_removed if shape.kind == "N:M" else spec.rate
    named = None if shape == default else str(shape)
    return Spec(rate=rate, granularity=named, criterion=spec.criterion) if named or spec.criterion else rate


def _follow_neurons(chosen: dict[str, float | Spec], layout: Layout) -> list[str]:
    """Where neurons go, gates and second projections follow: an equal entry of theirs is dropped, others refused."""
    problems = []
    for path, said in list(chosen.items()):
        whole = layout.feed_forward(path) if isinstance(said, Spec) and said.granularity == "neuron" else None
        for follower in [p.path for p in whole.projections[1:]] if whole else []:
            other = chosen.pop(follower, said)
            if other not in (said, 0):
                problems.append(f"{follower}: follows the neurons of {path} ({said}) and takes no rate; got {other}")
    return problems


def _whole(key: str, layout: Layout) -> dict[str, float | Spec]:
    """What makes the sublayer or layer at ``key`` a no-op, by target; nothing where no such block is there.

    An out-projection reads nothing once its heads are gone, and takes no rate of its own.
    """
    entries: dict[str, float | Spec] = {}
    followers: set[str] = set()
    inside = [b for b in layout.blocks if b.level != "module" and b.path == key and key not in layout]
    for path in dict.fromkeys(target for block in inside for target in block.targets if target in layout):
        if path in followers:
            continue
        entries[path] = Spec(rate=1.0, granularity="neuron") if layout.feed_forward(path) else 1.0
        followers |= layout.in_feed_forwards([path])
        if layout.target(path).kind == "attention":
            followers.add(layout.out_projection(path).path)
    return entries


def _unknown_keys(path: Path, raw: dict[str, Any], layout_of: Callable[[str | None], Layout]) -> list[str]:
    """Keys that match no target, in a file that has other mistakes too; why nobody can tell, where it is so."""
    named, given = raw.get("model"), raw.get("configurations")
    if not (named is None or (isinstance(named, str) and named)) or not isinstance(given, list):
        return []
    try:
        layout = layout_of(named)
    except InputError as bad:
        return list(bad.problems)
    keys = [(i, key) for i, one in enumerate(given) if isinstance(one, dict) for key in one]
    unknown = [(i, key) for i, key in keys if not targets_named(key, layout) and not _whole(key, layout)]
    return [f"{path}: configurations[{i}]: {no_target('key', key, layout)}" for i, key in unknown]
