"""Progress that does something at every step: the events by which tests look into a training, or end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from composer.progress import Bar, Progress


class EveryStep(Progress):
    """Calls ``then(number of the step)`` whenever a step is done."""

    def __init__(self, then: Callable[[int], None]) -> None:
        self.then = then

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        then, done = self.then, [0]

        class Counting(Bar):
            def advance(self, detail: str = "") -> None:
                done[0] += 1
                then(done[0])

        yield Counting()


def killed_at(step: int) -> EveryStep:
    """Interrupts the work when so many steps are done."""

    def kill(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return EveryStep(kill)
