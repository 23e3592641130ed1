"""What runs shares of a work side by side, and what a worker gives back.

A share may be run twice, as when a worker dies in it: the work must store what it finishes, and do nothing where all
is there. Nothing here knows what the work is.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

RESTARTS = 3
"""How often work that died with its worker is started again."""
POLL = 0.5
"""Seconds between two looks at what has been done."""

Share = TypeVar("Share")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs shares side by side."""

    jobs: int
    """How many at once."""

    def run(self, work: Callable[[Share], Result], shares: Sequence[Share], watch: Callable[[], None]) -> list[Result]:
        """The results, in the order of ``shares``; ``watch`` is called now and then, and when all is done.

        ``work`` is a function of a module, and all that goes in and out can be pickled. The first error that it
        raises is raised here.

        Raises:
            WorkerError: workers cannot be started, or died more than :data:`RESTARTS` times.
        """
        ...

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, ``at_once`` in the middle of what they do."""
        ...


class Answer(NamedTuple):
    """What a work came to: a result or an error."""

    result: Any
    error: BaseException | None

    def value(self) -> Any:
        """The result; the error is raised instead, where there is one."""
        if self.error is not None:
            raise self.error
        return self.result


def answer(work: Callable[[Share], Result], share: Share) -> Answer:
    """Do a share, in a worker; an error comes back as itself, with its traceback where it is a bug."""
    try:
        return Answer(work(share), None)
    except Exception as bad:
        trace = "".join(traceback.format_exception(bad))
        bad.add_note(f"In a worker:\n{trace}")
        try:
            pickle.loads(pickle.dumps(bad))
        except Exception:  # not every exception survives that; its words do
            return Answer(None, RuntimeError(trace))
        return Answer(None, bad)


def threads_for(jobs: int) -> int:
    """Threads of each of ``jobs`` workers on this machine: their part of its cores, or what OMP_NUM_THREADS says."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else max(1, cores() // jobs)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int) -> None:
    """Compute with so many threads in this process."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
