"""What a test waits for: something that happens, never a time in which it should have happened."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

HANGING = 600.0
"""Seconds after which something that never ends is given up; nothing here takes so long on the slowest machine."""


def until(happened: Callable[[], bool]) -> None:
    """Return as soon as ``happened()`` is true."""
    deadline = time.monotonic() + HANGING
    while not happened():
        assert time.monotonic() < deadline, "waited for something that does not happen"
        time.sleep(0.005)


class Trap:
    """A pipe in the place of a block's file: who stores that block stops there, in the middle of its work.

    To a library a pipe is no block, so it is made; before it is written what stands in its place is read, which waits
    for somebody who writes into the pipe. The one that is caught holds the library's lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)

    def caught(self) -> bool:
        """Whether somebody is in it."""
        if self._handle is None:
            try:
                self._handle = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as bad:
                if bad.errno != errno.ENXIO:  # nobody reads
                    raise
        return self._handle is not None

    def remove(self) -> None:
        """Let go: who is alive in it goes on and writes the block."""
        self.path.unlink()
        if self._handle is not None:
            os.close(self._handle)
