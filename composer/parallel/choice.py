"""Who works: this process, others of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..progress import Progress
from .processes import Processes
from .protocol import Executor


@contextmanager
def executor_of(jobs: int, cluster: str | None, *, device: str, progress: Progress) -> Iterator[Executor | None]:
    """Who is to work: None for nobody but this process.

    Args:
        device: what the work computes on, as a recipe says it.
    """
    if cluster is None and jobs == 1:
        yield None
        return
    executor: Executor
    if cluster is None:
        executor = Processes(jobs, progress)
    else:
        from .ray import Cluster

        executor = Cluster(cluster, jobs, device=device)
    try:
        yield executor
    except BaseException:
        executor.close(at_once=True)
        raise
    executor.close()
