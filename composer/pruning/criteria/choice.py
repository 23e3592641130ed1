"""Which criterion prunes what in a scheme, and whether it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ConfigError, InputError, PluginError
from ...scheme.graph import Node, Scheme
from ...scheme.layout import Layout
from ...scheme.shapes import Shape
from . import CRITERIA
from .criterion import IDENTIFIES, Criterion, version_of


def looks_at_data(*criteria: Criterion) -> bool:
    """Whether any of them needs a calibration sample, or learns from the data."""
    return any({"calibration", "movement"} & _settings_behind(criterion) for criterion in criteria)


def criterion_of(node: Node, path: str, default: Criterion) -> Criterion:
    """The criterion that ``node`` names for the target at ``path``, or the run's."""
    return criterion_named(node.choices.get(path, {}).get("criterion"), default)


def criterion_named(name: str | None, default: Criterion) -> Criterion:
    """The criterion of this name, or the run's where none is named."""
    return default if name in (None, default.name) else CRITERIA.get(str(name))()


def criteria_of(scheme: Scheme, default: Criterion) -> list[Criterion]:
    """All criteria that the variants of a scheme use."""
    used = [criterion_of(node, node.path, default) for node in scheme.at("module")]
    return list({criterion.name: criterion for criterion in used}.values())


def identity_of(criterion: Criterion, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies a criterion in lineages: its name and version, and what of a run's settings shapes its masks."""
    own = _settings_behind(criterion)
    version = {} if version_of(criterion) == 1 else {"version": version_of(criterion)}
    return {"name": criterion.name, **version, **{name: value for name, value in settings.items() if name in own}}


def _settings_behind(criterion: Criterion) -> set[str]:
    """Names of the settings that decide what a criterion looks at.

    Raises:
        PluginError: it needs a statistic that there is not.
    """
    if unknown := sorted(criterion.needs - IDENTIFIES.keys()):
        raise PluginError(
            f"criterion {criterion.name!r} needs {', '.join(unknown)}; statistics that can be needed: "
            f"{', '.join(IDENTIFIES)}"
        )
    return {IDENTIFIES[need] for need in criterion.needs}


def check_criteria(scheme: Scheme, layout: Layout, default: Criterion | None = None) -> None:
    """Refuse, by name, a criterion that does not exist or makes no sense with a granularity.

    Args:
        default: of variants that name none; None looks only at those that name one.

    Raises:
        ConfigError: one problem for each pair, with the first target that asks for it.
    """
    targets: dict[tuple[str, Shape], list[str]] = {}
    for node in scheme.at("module"):
        name = node.choices.get(node.path, {}).get("criterion", default.name if default else None)
        if name:
            paths = targets.setdefault((name, node.shape(layout.target(node.path))), [])
            paths += [] if node.path in paths else [node.path]
    problems = [
        f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}: {problem}"
        for (name, shape), paths in targets.items()
        if (problem := _refusal(name, shape, default))
    ]
    if problems:
        raise ConfigError(problems)


def _refusal(name: str, shape: Shape, default: Criterion | None) -> str | None:
    try:
        criterion = default if default and name == default.name else CRITERIA.get(name)
    except InputError as unknown:
        return str(unknown)
    if shape.scored.kind in criterion.shapes:
        return None
    others = [other for other in CRITERIA.names() if shape.scored.kind in CRITERIA.get(other).shapes]
    return (
        f"criterion {name!r} makes no sense with granularity {str(shape)!r}; allowed with it: "
        f"{', '.join(others)}; with {name!r}: {', '.join(sorted(criterion.shapes))}"
    )
