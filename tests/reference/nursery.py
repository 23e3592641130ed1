"""A process that starts command lines quickly: everything is imported once, each one runs in a fork.

It reads lines of JSON: ``{"words": [...], "folder": ..., "output": ...}`` starts a command line there, which
writes into ``output.out`` and ``output.err``, and answers with its process; ``{"wait": process}`` waits for it and
answers with its exit status (negative: the signal).
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any, NoReturn

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


def work(words: list[str], folder: str, output: str) -> NoReturn:
    """Run a command line as its own process would."""
    from composer.cli.app import call

    os.chdir(folder)
    for stream, ending in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(f"{output}{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    status = 1
    try:
        status = call(words)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def answer(asked: dict[str, Any]) -> int:
    if "wait" in asked:
        return os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
    child = os.fork()
    if not child:
        work(**asked)
    return child


if __name__ == "__main__":
    for module in MODULES:
        import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
