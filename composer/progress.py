"""How long work tells what it is doing. Stages call it; the command line shows it; the default is silent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Bar:
    """One piece of work with a known number of steps."""

    def advance(self, detail: str = "") -> None:
        """One step is done; ``detail`` says where the work stands."""


class Progress:
    """The silent reporter, and the contract of the others."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        """A bar of ``total`` steps for the duration of the body."""
        yield Bar()

    def note(self, text: str) -> None:
        """A line that the user should see."""


SILENT = Progress()


@contextmanager
def log_level(name: str, level: int) -> Iterator[logging.Logger]:
    """Within the body the logger of this name speaks from ``level`` on."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield logger
    finally:
        logger.setLevel(before)
