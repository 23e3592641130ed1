"""Units of a model that no family's table serves: `nn.Linear` modules that the user names, whose rows others read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from ..errors import ModelError
from ..scheme.layout import Layout, unnumbered
from .units import Units


def pairs_of(layout: Layout, globs: Sequence[str], name: str) -> Iterator[Units]:
    """Projections that belong together, as a feed-forward each: what the last glob names reads the rows of the others.

    Modules are taken together when their paths differ only after the last number: one of each layer.

    Args:
        globs: of paths; all but the last name what makes units (of several their products, as gates), the last what
            reads them.
        name: of the model, for messages.

    Raises:
        ModelError: fewer than two globs, one that names nothing, or modules whose widths do not meet.
    """
    if len(globs) < 2:
        raise ModelError("--targets: allowed: two globs or more; the last names what reads the rows of the others")
    named = [[path for path in layout.paths if fnmatchcase(path, glob)] for glob in globs]
    if empty := [glob for glob, paths in zip(globs, named, strict=True) if not paths]:
        raise ModelError(
            f"--targets: {empty[0]!r} names no nn.Linear of {name}; it has {', '.join(layout.paths[:4])} …"
        )
    for last in named[-1]:
        first = [path for paths in named[:-1] for path in paths if _place(path) == _place(last)]
        yield _together(layout, first, last)


def _place(path: str) -> tuple[str, ...]:
    """The numbers in a path, with what stands before each."""
    parts, starred = path.split("."), unnumbered(path).split(".")
    numbered = [i for i, part in enumerate(starred) if part == "*"]
    return tuple(parts[: numbered[-1] + 1]) if numbered else ()


def _together(layout: Layout, first: list[str], last: str) -> Units:
    reader = layout.target(last).projections[0]
    makers = tuple(layout.target(path).projections[0] for path in first)
    wrong = [p for p in makers if p.out_features != reader.in_features]
    if not makers or wrong:
        got = f"{wrong[0].path} has {wrong[0].out_features}" if wrong else "nothing in its layer was named"
        raise ModelError(f"--targets: {last} reads {reader.in_features} columns, and {got} rows; allowed: as many")
    return Units("feed_forward", first[0], ".".join(_place(last)), reader.in_features, 1, makers, reader)
