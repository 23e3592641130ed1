"""Making configurations from lists of rates: one by one, as a grid, or drawn at random."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from ..errors import ConfigError
from .configurations import Spec, check_rates
from .globs import match_targets, patterns
from .layout import Kind, Layout
from .shapes import Shape, parse_shape
from .structure import FLAGS, Structure

DEFAULT_ATTENTION = (0.25, 0.5, 0.25)
DEFAULT_LINEAR = (0.3, 0.3, 0.5)


def generate(
    layout: Layout,
    *,
    attention: Sequence[float] = DEFAULT_ATTENTION,
    linear: Sequence[float] = DEFAULT_LINEAR,
    count: int | None = None,
    grid: bool = False,
    draws: int | None = None,
    seed: int = 0,
    targets: Iterable[str] = (),
    granularity: str | None = None,
    attention_granularity: str | None = None,
    structured: bool = False,
    uniform: bool = False,
    multiple: int | None = None,
) -> list[dict[str, float | Spec]]:
    """Make configurations: maps of target path -> rate, in execution order.

    Args:
        layout: the base model's targets.
        attention: rates for attention targets.
        linear: rates for linear targets.
        count: how many configurations; defaults to the lists' length. A list of one value is repeated.
        grid: every combination of an attention rate and a linear rate instead.
        draws: instead draw so many configurations, each target's rate from its kind's list.
        seed: for ``draws``.
        targets: globs; only these targets are named, the others stay dense.
        granularity: shape of what is removed from linear targets (:mod:`composer.scheme.shapes`). With ``neuron`` the
            feed-forwards lose neurons, the other linear targets single weights.
        attention_granularity: shape of what is removed from attention targets; None is heads.
        structured: whole units only, so that a model can be shrunk to them: heads by the attention rates, neurons of
            feed-forwards by the linear ones. No other target is named: an out-projection follows its heads.
        uniform: structured, and every layer keeps the same number; heads whose position bias a stack shares go by
            index over the stack. Such a model loads without code of its own wherever its ``config.json`` can say so.
        multiple: structured, and the number of kept neurons is a multiple of this one.

    Raises:
        ConfigError: values that are no rates, lists of the wrong length, a glob that names no target, a shape that
            does not fit.
    """
    rates = _checked({"attention": attention, "linear": linear})
    if not layout.listed and not targets:
        raise ConfigError(
            f"--targets: nothing given; no table for {layout.family} models, so name what is pruned by globs, such as "
            + ", ".join(map(repr, patterns(layout)[:4]))
        )
    named = match_targets(targets, layout, where="--targets") if targets else list(layout.paths)
    kinds = {layout.target(path).kind for path in named}
    rates |= {kind: [0.0] for kind in rates if kind not in kinds}  # a list for nobody has no say in how many there are
    if draws is not None:
        _positive("--random", draws)
        source = random.Random(seed)
        made = [_drawn(named, layout, rates, source, alike=uniform) for _ in range(draws)]
    else:
        pairs = list(product(rates["attention"], rates["linear"])) if grid else _paired(rates, count)
        made = [
            {t: a if layout.target(t).kind == "attention" else b for t in named}  # one rate per kind
            for a, b in pairs
        ]
    shapes = _shapes({"linear": granularity, "attention": attention_granularity})
    if structured or uniform or multiple is not None:
        wanted = Structure(layout, shapes, uniform=uniform, multiple=multiple)
        return [wanted.of(one) for one in made]
    return [_shaped(one, layout, shapes) for one in made]


def _drawn(
    named: Sequence[str], layout: Layout, rates: Mapping[Kind, Sequence[float]], source: random.Random, *, alike: bool
) -> dict[str, float]:
    """A rate for each target from its kind's list, or one for all of a kind."""
    if alike:
        one = {kind: source.choice(list(rates[kind])) for kind in rates}
        return {t: one[layout.target(t).kind] for t in named}
    return {t: source.choice(rates[layout.target(t).kind]) for t in named}


def _shapes(names: Mapping[Kind, str | None]) -> dict[Kind, Shape]:
    """The shapes that are named, but for a kind's default."""
    shapes = {kind: parse_shape(name, FLAGS[kind]) for kind, name in names.items() if name}
    if "linear" in shapes and shapes["linear"].by_heads:
        raise ConfigError(
            f"--granularity: got {str(shapes['linear'])!r}, a shape of attention targets; allowed: one of linear ones"
        )
    if "attention" in shapes and shapes["attention"].kind == "neuron":
        raise ConfigError(
            "--attention-granularity: got 'neuron', a shape of feed-forwards; allowed: a shape of attention targets"
        )
    return {kind: shape for kind, shape in shapes.items() if shape.kind != "head"}


def _shaped(rates: dict[str, float], layout: Layout, shapes: Mapping[Kind, Shape]) -> dict[str, float | Spec]:
    """Targets of each kind in its shape; where neurons go, gates and second projections follow and are not named."""
    shaped: dict[str, float | Spec] = {}
    followers: set[str] = set()
    problems: list[str] = []
    for kind, shape in shapes.items():
        paths = [path for path in rates if layout.target(path).kind == kind]
        if shape.kind == "neuron":
            wholes = [whole for path in paths if (whole := layout.feed_forward(path))]
            paths, followers = [w.path for w in wholes], {p.path for w in wholes for p in w.projections[1:]}
        paths = [path for path in paths if rates[path]]
        problems += [
            f"{FLAGS[kind]}: {path}: {problem}; got {rates[path]:g}"
            for path in paths
            if (problem := shape.problem(layout, path, rates[path]))
        ]
        shaped |= {path: Spec(rate=rates[path], granularity=str(shape)) for path in paths}
    if problems:
        raise ConfigError(problems[:5])
    return {path: shaped.get(path, rate) for path, rate in rates.items() if path not in followers}


def _checked(given: dict[Kind, Sequence[float]]) -> dict[Kind, list[float]]:
    rates: dict[Kind, list[float]] = {}
    problems: list[str] = []
    for kind, values in given.items():
        try:
            rates[kind] = check_rates(f"--{kind}", values)
        except ConfigError as bad:
            problems += bad.problems
    if problems:
        raise ConfigError(problems)
    return rates


def _paired(rates: dict[Kind, list[float]], count: int | None) -> list[tuple[float, float]]:
    if count is not None:
        _positive("--count", count)
    n = count or max(len(values) for values in rates.values())
    problems = [
        f"--{kind}: got {len(values)} rates for {n} configurations; allowed: 1 or {n}"
        for kind, values in rates.items()
        if len(values) not in (1, n)
    ]
    if problems:
        raise ConfigError(problems)
    full = {kind: values * n if len(values) == 1 else values for kind, values in rates.items()}
    return list(zip(full["attention"], full["linear"], strict=True))


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}: got {value}; allowed: a whole number of at least 1")
