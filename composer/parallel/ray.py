"""Shares of a work on a Ray cluster (``pip install 'composer-pruning[ray]'``)."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import WorkerError, did_you_mean
from .protocol import POLL, RESTARTS, Result, Share, answer, cores, limit_threads, threads_for

PATIENCE = 10.0
"""Seconds in which a cluster must take up a connection: its system does so, however busy its programs are."""
LOCAL = "local"
"""Instead of an address: a cluster made of this machine, for this command."""


class Cluster:
    """Tasks of a Ray cluster; see :class:`composer.parallel.protocol.Executor`.

    Ray itself starts a task again when its worker or its node dies. Where the cluster has GPUs and the work may use
    them, each task gets a part of one.
    """

    def __init__(self, address: str, jobs: int, *, device: str) -> None:
        self.address, self.jobs, self.device = address, jobs, device
        self._ours = False

    def run(self, work: Callable[[Share], Result], shares: Sequence[Share], watch: Callable[[], None]) -> list[Result]:
        """See :class:`composer.parallel.protocol.Executor`."""
        ray = self._connected()
        needs, threads = self._needs(ray)
        task = ray.remote(_within).options(max_retries=RESTARTS, **needs)
        tasks = [task.remote(threads, work, share) for share in shares]
        left, results = list(tasks), dict[Any, Any]()
        try:
            while left:
                done, left = ray.wait(left, num_returns=1, timeout=POLL)
                for one in done:
                    results[one] = ray.get(one).value()
                watch()
        except BaseException as bad:
            if not self._ours:
                for one in left:  # by force, Ray 2.60 may abort this very process when the task ends meanwhile
                    ray.cancel(one, force=False)
            if isinstance(bad, ray.exceptions.RayError):
                raise WorkerError(f"--cluster: {_said(ray, bad)}; finished work is kept") from None
            raise
        return [results[one] for one in tasks]

    def close(self, *, at_once: bool = False) -> None:
        """See :class:`composer.parallel.protocol.Executor`; Ray ends the tasks of who leaves.

        A connection that was there before stays.
        """
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False

    def _connected(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise WorkerError(
                "--cluster: needs Ray, which is not installed; pip install 'composer-pruning[ray]'"
            ) from None
        if ray.is_initialized():
            return ray
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == LOCAL:
            size = max(cores(), self.jobs * threads_for(self.jobs))
            ray.init(num_cpus=size, include_dashboard=False, **quiet)
        else:
            try:
                _knock(self.address)
                ray.init(address=self.address, **quiet)
            except (OSError, ValueError, RuntimeError) as bad:
                why = str(bad).strip().splitlines()[0]
                raise WorkerError(
                    f"--cluster: got {self.address!r}, where no Ray cluster answers ({why}); allowed: the address "
                    f"host:port of a running one (`ray start --head` tells it), auto, {LOCAL}"
                    + did_you_mean(self.address, ["auto", LOCAL])
                ) from None
        self._ours = True
        return ray

    def _needs(self, ray: Any) -> tuple[dict[str, Any], int]:
        """What a task asks of a node, and the threads it computes with."""
        has = ray.cluster_resources()
        smallest = int(min((n["Resources"].get("CPU", 1) for n in ray.nodes() if n["Alive"]), default=1)) or 1
        if self.address == LOCAL or os.environ.get("OMP_NUM_THREADS"):
            threads = threads_for(self.jobs)
        else:
            threads = max(1, min(int(has.get("CPU", 1)) // self.jobs, smallest))
        gpus = has.get("GPU", 0) if self.device == "auto" or self.device.startswith("cuda") else 0
        part = {"num_gpus": 1 / math.ceil(self.jobs / gpus)} if gpus >= 1 else {}
        return {"num_cpus": min(threads, smallest), **part}, threads


def _knock(address: str) -> None:
    """Raise ``OSError`` where nobody listens: Ray itself would try for many minutes."""
    if address != "auto":
        host, _, port = address.rpartition("://")[2].rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError("no host and port")
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _within(threads: int, work: Callable[[Any], Any], share: Any) -> Any:
    """A task of the cluster: one share, with so many threads."""
    limit_threads(threads)
    return answer(work, share)


def _said(ray: Any, bad: Exception) -> str:
    """What Ray says in its last line: those before it are its own stack."""
    if isinstance(bad, ray.exceptions.WorkerCrashedError):
        return f"{RESTARTS + 1} times a worker died"
    lines = [line.strip() for line in str(bad).splitlines() if line.strip()]
    return lines[-1] if lines else type(bad).__name__
