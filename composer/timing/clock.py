"""The clock: seconds of one piece of work, and of several that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

Work = Callable[[], Any]

SHORT = 0.02
"""Seconds that one measurement lasts at least: what is shorter is done several times in it."""
LONG = 20.0
"""Seconds that all rounds may take where nobody says otherwise; where they would take longer, fewer are made."""
FEWEST = 7
"""Rounds that a ratio needs for an interval with 98 % of the chances; see :func:`.statistics.interval`."""
WARM_UP = 2
"""Times that everything is done before the clock runs: caches fill, buffers grow, kernels are chosen."""


class Took(NamedTuple):
    """Seconds of one piece of work: by the wall clock, and of all processors together."""

    wall: float
    processor: float


def took(work: Work, device: torch.device | None = None) -> Took:
    """Seconds of ``work``, the device's own work included."""
    synchronise(device)
    wall, processor = time.perf_counter(), time.process_time()
    work()
    synchronise(device)
    return Took(time.perf_counter() - wall, time.process_time() - processor)


def in_turn(
    works: Sequence[Work], rounds: int, device: torch.device | None = None, longest: float = LONG
) -> list[list[Took]]:
    """Seconds of each work in each round, in which all take turns: A B A B …

    So what else the machine does meets all of them alike, and two works can be compared round by round. The first
    rounds are for nothing but warming up. Work that is over in no time is done several times in a round; where all
    rounds would take longer than ``longest`` seconds, fewer are made, but never under :data:`FEWEST`.

    Returns:
        For each work its seconds, one pair for each round.
    """
    for _ in range(WARM_UP):
        first = [took(work, device).wall for work in works]
    times = [max(1, min(1000, round(SHORT / max(seconds, 1e-9)))) for seconds in first]
    total = sum(seconds * n for seconds, n in zip(first, times, strict=True))
    rounds = rounds if total * rounds <= longest else max(min(FEWEST, rounds), int(longest / total))
    spent: list[list[Took]] = [[] for _ in works]
    for _ in range(rounds):
        for own, work, n in zip(spent, works, times, strict=True):
            all_of_them = took(lambda work=work, n=n: [work() for _ in range(n)], device)  # type: ignore[misc]
            own.append(Took(all_of_them.wall / n, all_of_them.processor / n))
    return spent


def synchronise(device: torch.device | None) -> None:
    """Wait until the device has done its work; a processor always has."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
