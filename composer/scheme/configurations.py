"""Pruning configurations: the file ``conf.json``, checked all at once, and what it says of each target.

A *configuration* maps targets to rates. Keys are paths of targets or globs over them; the more specific
key wins. The path of a sublayer or layer with rate 1 makes it a no-op: all its heads and neurons go. What a file says
is resolved against a :class:`~composer.scheme.layout.Layout`, so no model is loaded.
A rate alone means the target's default granularity and the run's criterion; an object says it in full:
``{"rate": 0.5, "granularity": "2:4", "criterion": "wanda"}``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
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

from ..errors import ConfigError, InputError, did_you_mean
from ..files.jsonfile import canonical, read_json, write_json
from .layout import Layout, unnumbered
from .shapes import ALLOWED as ALLOWED_SHAPES
from .shapes import default_shape, parse_shape, shape_of

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
Rates = dict[str, float]
"""Target path -> rate in (0, 1]; targets that stay dense are absent."""

ALLOWED_RATE = "a number with 0 <= rate <= 1"


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
            f"{path}: got {_shown(raw)}; allowed: an object with 'configurations', or a list of configurations"
        )
    try:
        read = Configurations.model_validate(raw)
    except ValidationError as bad:
        problems += [f"{path}: {problem}" for problem in _problems(bad)]
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
            problems.append(f"{name}[{i}]: got {_shown(rate)}; allowed: {ALLOWED_RATE}")
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
    shapes = Counter(map(unnumbered, layout.paths))
    return [glob for glob, _ in shapes.most_common()]


def _resolve_one(given: Assignment, layout: Layout) -> tuple[Assignment, list[str]]:
    matching: dict[str, dict[str, float | Spec]] = {}  # target -> key -> what it says of it
    problems: list[str] = []
    for key, said in given.items():
        whole = _whole(key, layout)
        matches: dict[str, float | Spec] = whole or dict.fromkeys(_matches(key, layout), said)
        if not matches:
            problems.append(_unknown("key", key, layout))
        if whole and said != 1:
            problems.append(f"key {key!r} names all that is inside, which goes whole or not; got {said}; allowed: 1")
        for target, entry in matches.items():
            matching.setdefault(target, {})[key] = entry
    chosen: dict[str, float | Spec] = {}
    for target in filter(matching.__contains__, layout.paths):
        entries = matching[target]
        most = max(_specificity(key, target) for key in entries)
        first, *others = [key for key in entries if _specificity(key, target) == most]
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


def _matches(key: str, layout: Layout) -> list[str]:
    """Targets that a key names."""
    return [key] if key in layout else [t for t in layout.paths if fnmatchcase(t, key)]


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
    unknown = [(i, key) for i, key in keys if not _matches(key, layout) and not _whole(key, layout)]
    return [f"{path}: configurations[{i}]: {_unknown('key', key, layout)}" for i, key in unknown]


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
        # A value's place goes on with the tag of what it was read as, and then its field.
        path, field = error["loc"][:3], error["loc"][4:]
        if field and error["type"] != "missing":
            path = (*path, field[0])
        first, *rest = path
        name = first if str(first).isidentifier() else repr(first)
        place = f"{name}{''.join(f'[{part!r}]' for part in rest)}"
        allowed = _allowed_in_full(error, str(field[0])) if field else _allowed(error)
        problems.append(f"{place}: got {_shown(error['input'])}; allowed: {allowed}")
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
        return "only 'rate', 'granularity' and 'criterion'" + did_you_mean(field, Spec.model_fields)
    if error["type"] == "granularity":
        return str(error["ctx"]["line"].partition("allowed: ")[2])
    return {"rate": ALLOWED_RATE, "granularity": ALLOWED_SHAPES, "criterion": "the name of a criterion"}[field]


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
