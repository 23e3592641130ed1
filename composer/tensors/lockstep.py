"""Passes of a model that wait for each other: all batches come to one place in it before any goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from greenlet import getcurrent, greenlet
from torch import Tensor

from ..errors import ModelError

current: Callable[[], Any] = getcurrent
"""The pass that a hook is called in: always a :class:`Pass`, for nothing else runs the model meanwhile."""


class Pass(greenlet):
    """A pass as a coroutine: each switch to it runs it on to where a hook hands something over."""

    entered: Tensor  # kept for whoever wants it: the stream before the sublayer that it is in
    stream: Tensor  # in pre-norm layers: the stream after what ran last

    def __init__(self, work: Callable[[], object]) -> None:
        """``work`` runs the model once."""
        super().__init__()
        self.work = work

    def run(self) -> None:
        """What the coroutine does from its first switch on."""
        self.work()

    def to(self, path: str) -> Tensor:
        """Go on to the stop at ``path``; returns what is handed over there.

        Raises:
            ModelError: it stops elsewhere, or ends.
        """
        stop = self.switch()
        if self.dead or stop[0] != path:
            instead = "ended" if self.dead else f"came to {stop[0]}"
            raise ModelError(f"{path}: must run once per pass, in the layout's order; the model {instead} instead")
        value: Tensor = stop[1]
        return value

    def hand_over(self, path: str, value: Tensor) -> None:
        """Stop here, within the pass, until the next :meth:`to`."""
        self.parent.switch((path, value))


def stops(work: Callable[[], object]) -> list[str]:
    """Where a pass stops, in order."""
    one, found = Pass(work), []
    while not one.dead:
        stop = one.switch()
        if not one.dead:
            found.append(stop[0])
    return found


@contextmanager
def in_step(passes: Iterable[Pass]) -> Iterator[None]:
    """Passes that wait somewhere at the end of the body are ended there."""
    try:
        yield
    finally:
        for one in passes:
            one.throw()
