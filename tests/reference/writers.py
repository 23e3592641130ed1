"""A process that lets others write into a library at once, or kills them while they write.

``python writers.py FOLDER together|kill``. Forking happens here, in a process of its own, because the one
that runs the tests may have threads.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

BLOCKS = 12


def content(i: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Lineage, weights and masks of block ``i``: more than a megabyte."""
    import torch

    weight = torch.arange(2.0**18).reshape(512, 512) + i
    return {"block": i}, {"a.weight": weight}, {"a.weight": weight % 2 == 0}


def write(folder: Path, order: list[int]) -> None:
    """Write blocks in the given order."""
    from composer.library.store import Library

    for i in order:
        Library(folder).put(*content(i))


def together(folder: Path, draw: random.Random) -> None:
    """Four processes write the same blocks, each in its own order, three times over."""
    children = []
    for _ in range(4):
        order = draw.sample(range(BLOCKS), BLOCKS) * 3
        child = os.fork()
        if not child:
            write(folder, order)
            os._exit(0)
        children.append(child)
    states = [os.waitpid(child, 0)[1] for child in children]
    if any(states):
        raise SystemExit(f"a writer failed: {states}")


def kill(folder: Path, draw: random.Random) -> None:
    """Kill a process that writes new blocks; again and again, each time at another moment."""
    for start in range(0, 20_000, 1000):
        there, here = os.pipe()
        child = os.fork()
        if not child:
            for i in range(start, start + 20):  # enough for a few hundredths of a second, and not the whole disk
                write(folder, [i])
                os.write(here, b".")
            while True:
                signal.pause()
        os.close(here)
        os.read(there, 1)  # however slow the machine is, a block is written first
        time.sleep(draw.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(there)


if __name__ == "__main__":
    for module in ("torch", "safetensors.torch", "composer.library.store"):
        import_module(module)  # before the forks, so that each child need not
    {"together": together, "kill": kill}[sys.argv[2]](Path(sys.argv[1]), random.Random(0))
