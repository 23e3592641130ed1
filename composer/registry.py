"""Names of plugins and where they live, resolved only when one is asked for.

A table row is ``name -> "package.module:object"``. Nothing is imported until :meth:`Registry.get`, so
listing the criteria in ``--help`` costs nothing.

Any installed package can add rows: its entry points of the registry's group are such rows, under the same names::

    [project.entry-points."composer.tasks"]
    my_task = "my_package.module:MyTask"

They come after the table's rows, in the order of their names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from typing import Generic, TypeVar, cast

from .errors import InputError, PluginError, did_you_mean

T = TypeVar("T")

GROUPS = "composer."
"""How the names of all groups of entry points begin."""


class Registry(Generic[T]):
    """A named table of lazily imported plugins.

    >>> registry = Registry[object]("number", {"pi": "math:pi"})
    >>> registry.get("pi")
    3.141592653589793
    >>> registry.get("pie")
    Traceback (most recent call last):
    ...
    composer.errors.InputError: unknown number 'pie'; allowed: pi; did you mean 'pi'?
    """

    def __init__(self, kind: str, table: dict[str, str], group: str | None = None) -> None:
        """Rows name modules; none is imported yet.

        Args:
            kind: what one plugin is, for messages.
            group: of the entry points by which other packages add rows; None takes none.
        """
        self.kind, self.group = kind, group
        self._table = dict(table)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of the table."""
        return (*self._table, *self._brought)

    def all(self) -> Iterator[T]:
        """Every plugin, in the order of the table; other packages are looked for only when that is used up."""
        yield from map(self.get, self._table)
        yield from map(self.get, self._brought)

    def get(self, name: str) -> T:
        """Import and return the plugin called ``name``.

        Raises:
            InputError: no plugin has this name; the message lists those that exist.
            PluginError: it is another package's, and is not there.
        """
        if name in self._table:
            return self._imported(self._table[name])
        if name in self._brought:
            package, row = self._brought[name]
            try:
                return self._imported(row)
            except (ImportError, AttributeError) as bad:
                raise PluginError(f"{self.kind} {name!r} of the package {package}: {row}: {bad}") from bad
        names = self.names()
        raise InputError(f"unknown {self.kind} {name!r}; allowed: {', '.join(names)}" + did_you_mean(name, names))

    def looked_at(self) -> str:
        """Where rows of other packages were looked for and which there are, for messages: what is missing here may be
        another package's.

        >>> Registry[object]("number", {}, group="composer.examples").looked_at()
        'entry points composer.examples of the installed packages: none'
        """
        rows = ", ".join(f"{name} of {package}" for name, (package, _) in self._brought.items())
        return f"entry points {self.group} of the installed packages: {rows or 'none'}"

    @property
    def _brought(self) -> dict[str, tuple[str, str]]:
        """Rows of other packages: name -> (package, row)."""
        if self.group is None:
            return {}
        found: dict[str, tuple[str, str]] = {}
        for name, package, row in _installed(self.group, tuple(sys.path)):
            held = "composer" if name in self._table else found.get(name, (package, row))[0]
            if held != package:
                raise PluginError(
                    f"{self.kind} {name!r}: the packages {held} and {package} both have one; uninstall one of them"
                )
            found.setdefault(name, (package, row))
        return found

    @staticmethod
    def _imported(row: str) -> T:
        module, _, attribute = row.partition(":")
        return cast(T, getattr(import_module(module), attribute))


def plugin_versions() -> dict[str, str]:
    """Versions of the other packages whose rows this process has imported: package -> version, by name."""
    return {package: release for package, release, module in _everywhere(tuple(sys.path)) if module in sys.modules}


@lru_cache
def _installed(group: str, path: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Entry points of one group in the folders of ``path``: (name, package, row), by name."""
    from importlib.metadata import entry_points

    found = entry_points(group=group)
    # A stable sort: a package that is found twice is the one that Python imports.
    return sorted(
        ((entry.name, entry.dist.name if entry.dist else "?", entry.value) for entry in found), key=lambda row: row[0]
    )


@lru_cache
def _everywhere(path: tuple[str, ...]) -> list[tuple[str, str, str]]:
    """Entry points of all groups of registries in the folders of ``path``: (package, version, module), by package."""
    from importlib.metadata import distributions

    # A stable sort of the reverse: of a package that is found twice, the one that Python imports comes last.
    found = (
        (package.name, package.version, entry.value.partition(":")[0])
        for package in reversed(list(distributions()))
        for entry in package.entry_points
        if entry.group.startswith(GROUPS)
    )
    return sorted(found, key=lambda row: row[0])
