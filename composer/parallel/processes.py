"""Shares of a work in processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from ..errors import WorkerError
from ..progress import Progress
from .protocol import POLL, RESTARTS, Answer, Result, Share, answer, limit_threads, threads_for


class Processes:
    """Processes of this machine, made when they are first needed; see :class:`Executor`."""

    def __init__(self, jobs: int, progress: Progress) -> None:
        self.jobs, self.progress = jobs, progress
        self._pool: ProcessPoolExecutor | None = None
        self._started: list[Any] = []

    def run(self, work: Callable[[Share], Result], shares: Sequence[Share], watch: Callable[[], None]) -> list[Result]:
        """See :class:`Executor`."""
        results: dict[int, Result] = {}
        for again in range(RESTARTS + 1):
            left = [i for i in range(len(shares)) if i not in results]
            if self._round(work, {i: shares[i] for i in left}, results, watch):
                break
            died = self._drop_broken_pool()
            if again == RESTARTS:
                raise WorkerError(f"--jobs: {RESTARTS + 1} times {died}; finished work is kept")
            self.progress.note(f"{died}; what it had not finished is started again ({again + 1} of {RESTARTS})")
        watch()
        return [results[i] for i in range(len(shares))]

    def close(self, *, at_once: bool = False) -> None:
        """See :class:`Executor`."""
        if self._pool is None:
            return
        if at_once:
            for process in self._started:
                process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None

    def _round(
        self,
        work: Callable[[Share], Result],
        left: dict[int, Share],
        results: dict[int, Result],
        watch: Callable[[], None],
    ) -> bool:
        """Run these shares in one pool; False where a worker died, and with it the pool."""
        pool = self._pool = self._pool or self._new()
        futures: dict[Future[Answer], int] = {}
        try:
            with _interrupts_blocked():
                for i, share in left.items():
                    futures[pool.submit(answer, work, share)] = i
            # The pool has no public way to its processes, and their exit statuses are all that says how one died.
            self._started = list((pool._processes or {}).values())
            pending = set(futures)
            while pending:
                done, pending = wait(pending, timeout=POLL, return_when=FIRST_COMPLETED)
                for future in done:
                    results[futures[future]] = future.result().value()
                watch()
        except BrokenProcessPool:
            # What others had finished when the pool broke counts; the rest is run again.
            for future, i in futures.items():
                if i not in results and future.done() and future.exception() is None:
                    results[i] = future.result().value()
            return False
        return True

    def _new(self) -> ProcessPoolExecutor:
        threads = threads_for(self.jobs)
        return ProcessPoolExecutor(self.jobs, multiprocessing.get_context("spawn"), _prepare, (threads,))

    def _drop_broken_pool(self) -> str:
        """Close a pool that broke; says how its worker died."""
        self.close()
        # The pool ends the others by SIGTERM as soon as one is dead.
        status = next((p.exitcode for p in self._started if p.exitcode not in (None, 0, -signal.SIGTERM)), None)
        if status is None:
            return "a worker process died"
        if status < 0:
            hint = " (too little memory for so many?)" if status == -signal.SIGKILL else ""
            return f"a worker process was killed by {signal.Signals(-status).name}{hint}"
        return f"a worker process ended with status {status}"


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started in the body inherit that Ctrl-C is blocked; this one gets it when the body ends.

    A terminal sends Ctrl-C to all its processes: workers would die in the middle of a block, each with a traceback of
    its own, where the parent alone is to decide what becomes of them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(threads: int) -> None:
    """What a worker process does first."""
    limit_threads(threads)
    os.dup2(2, 1)  # standard output belongs to the result
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process with its parent: a killed one cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
