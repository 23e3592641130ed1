"""Targets that are named by globs: which ones a glob names, and how near it comes to one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase

from ..errors import ConfigError, did_you_mean
from .layout import Layout, unnumbered


def match_targets(patterns: Iterable[str], layout: Layout, *, where: str) -> list[str]:
    """Targets that any of the globs name, in execution order; a glob that names none is an error."""
    patterns = list(patterns)
    problems = [no_target(where, p, layout) for p in patterns if not any(fnmatchcase(t, p) for t in layout.paths)]
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


def targets_named(key: str, layout: Layout) -> list[str]:
    """Targets that a key names."""
    return [key] if key in layout else [t for t in layout.paths if fnmatchcase(t, key)]


def specificity(key: str, target: str) -> float:
    """Literal characters of a glob; infinite for the path itself."""
    return float("inf") if key == target else float(sum(c not in "*?[]" for c in key))


def no_target(where: str, key: str, layout: Layout) -> str:
    """What is wrong with a ``key`` that names no target, with those that are spelled nearly so."""
    return f"{where}: {key!r} matches no target of this {layout.family} model{nearly(key, layout)}"


def nearly(key: str, layout: Layout) -> str:
    """Which targets are spelled nearly like a ``key`` (a path, a glob, or ``re:`` and an expression), for messages.

    >>> from .layout import Target
    >>> layout = Layout("", tuple(Target(path, "linear", ()) for path in ("h.0.fc.up", "h.1.fc.up", "head")), ())
    >>> nearly("*.fx.up", layout), nearly("h.0.fc.pu", layout)
    ("; did you mean '*.fc.up' or '*.up'?", "; did you mean 'h.0.fc.up' or 'h.1.fc.up'?")
    """
    known: Iterable[str] = layout.paths
    if key.startswith("re:") or any(c in "*?[" for c in key):  # compared with globs of the ends of paths
        key = re.sub(r"^\*?\.?", "*.", key.removeprefix("re:").replace(".*", "*").replace("\\", ""))
        parts = [glob.split(".") for glob in patterns(layout)]
        ends = (one[-n:] for one in parts for n in range(1, len(one) + 1))
        known = dict.fromkeys("*." + ".".join(end) for end in ends if end[0] != "*")
    return did_you_mean(key, known, most=2) or f"; targets look like {layout.paths[0]!r}"
