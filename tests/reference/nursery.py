"""A process that starts command lines quickly: everything is imported once, each one runs in a fork.

It reads lines of JSON: ``{"words": [...], "folder": ..., "output": ...}`` starts a command line there, which
writes into ``output.out`` and ``output.err``, and answers with its process; ``{"wait": process}`` waits for it and
answers with its exit status (negative: the signal).

With ``"dies": [path, n]`` it kills itself, as ``kill -9`` would, before the ``n``-th time (from 0) that it opens,
renames or removes a file whose path contains ``path``; where it ends earlier, at its end. With ``"gate": file`` it
stands still before the first of these until the file is there. So a test says at which point of its work a process
dies, and not after how many seconds.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tests.reference.events import until

MODULES = (
    "composer.cli.blocks",
    "composer.cli.scheme",
    "composer.pruning.criteria.l1",
    "composer.steps.run",
    "composer.pruning.variants",
    "composer.training.blocks.tuner",
    "composer.steps.prune",
    "composer.training.blocks.least_squares",
    "networkx",
    "safetensors.torch",
    "transformers.models.t5.modeling_t5",
    "transformers.models.t5.tokenization_t5",
)


TOUCHES = {"open", "os.rename", "os.remove"}
"""Audit events: https://docs.python.org/3/library/audit_events.html"""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(path: str, moment: int, gate: str | None) -> None:
    """Let this process be killed before the given one of its dealings with files below ``path``."""
    met = 0

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal met, gate
        if event in TOUCHES and path in str(given[0]):
            if gate:
                there, gate = Path(gate), None
                until(there.exists)
            if met == moment:
                die()
            met += 1

    sys.addaudithook(hook)


def work(
    words: list[str], folder: str, output: str, dies: tuple[str, int] | None = None, gate: str | None = None
) -> NoReturn:
    """Run a command line as its own process would."""
    from composer.cli.app import call

    os.chdir(folder)
    if dies:
        die_at(*dies, gate)
    for stream, ending in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(f"{output}{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    status = 1
    try:
        status = call(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if dies:
            die()
        os._exit(status)


def answer(asked: dict[str, Any]) -> int:
    if "wait" in asked:
        return os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
    child = os.fork()
    if not child:
        work(**asked)
    return child


def import_all() -> None:
    """Import what a command line wants, for those that are forked afterwards."""
    for module in MODULES:
        import_module(module)


if __name__ == "__main__":
    import_all()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
