"""The exceptions that Composer raises on purpose.

::

    ComposerError                 base; never raised itself
    └── InputError                what the user gave cannot be used (exit status 2)
        ├── ConfigError           conf.json: rates, keys, shape of the file
        ├── RecipeError           compose.yaml and options
        ├── SchemeError           conf_prune.json: digest, wrong model, unreadable
        ├── ModelError            a base or composed model folder
        ├── DataError             data files, columns, splits
        ├── LibraryError          a missing or damaged block
        ├── OutputError           an output that exists and was made from other inputs
        ├── WorkerError           processes or a cluster that cannot do their part
        └── PluginError           a plugin of another package that cannot be had

Each carries one or more *problems*; a problem is one plain line that names the place (file, field),
what was got and what is allowed. Only the command line formats them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ComposerError(Exception):
    """Base of all errors that Composer raises on purpose."""


class InputError(ComposerError):
    """Something the user gave cannot be used.

    ``problems`` holds one plain line per problem, so that a file with five mistakes is reported once.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[str, ...]]]:
        """Problems stay apart when an error comes from another process."""
        return type(self), (self.problems,)


class ConfigError(InputError):
    """A configuration file or the rates in it."""


class RecipeError(InputError):
    """A recipe or an option."""


class SchemeError(InputError):
    """A scheme that does not hold its digest, or belongs to another model."""


class ModelError(InputError):
    """A model folder that is missing, incomplete or of an unknown family."""


class DataError(InputError):
    """Data files, their columns or their splits."""


class LibraryError(InputError):
    """A block of the library that is missing or damaged."""


class OutputError(InputError):
    """An output that exists already and was made from other inputs."""


class WorkerError(InputError):
    """Workers (``--jobs``, ``--cluster``) that cannot be started, keep dying, or see other files."""


class PluginError(InputError):
    """A plugin of another package that cannot be imported, or whose name is taken."""


def shown(value: object, most: int = 80) -> str:
    """A value as a message shows it: its ``repr``, cut where it is long.

    >>> shown("a" * 9, most=6), shown(0.5)
    ("'aaaaa…", '0.5')
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def did_you_mean(got: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return ``"; did you mean 'x'?"`` with the nearest known names, or ``""`` when none is near.

    >>> did_you_mean("wandaa", ["l1", "wanda"])
    "; did you mean 'wanda'?"
    >>> did_you_mean("q", ["l1", "wanda"])
    ''
    """
    near = difflib.get_close_matches(got, list(known), n=most, cutoff=0.6)
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(name) for name in near) + "?"
