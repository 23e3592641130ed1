"""Names of plugins and where they live, resolved only when one is asked for.

A table row is ``name -> "package.module:object"``. Nothing is imported until :meth:`Registry.get`, so
listing the criteria in ``--help`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Generic, TypeVar, cast

from .errors import InputError, did_you_mean

T = TypeVar("T")


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

    def __init__(self, kind: str, table: dict[str, str]) -> None:
        self.kind = kind
        self._table = dict(table)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of the table."""
        return tuple(self._table)

    def add(self, name: str, target: str) -> None:
        """Add a row; a name that is taken is a ``ValueError``."""
        if name in self._table:
            raise ValueError(f"{self.kind} {name!r} is registered already, as {self._table[name]}")
        self._table[name] = target

    def get(self, name: str) -> T:
        """Import and return the plugin called ``name``.

        Raises:
            InputError: no plugin has this name; the message lists those that exist.
        """
        if name not in self._table:
            raise InputError(
                f"unknown {self.kind} {name!r}; allowed: {', '.join(self._table)}" + did_you_mean(name, self._table)
            )
        module, _, attribute = self._table[name].partition(":")
        return cast(T, getattr(import_module(module), attribute))
