"""Seconds (wall, processor), losses and memory of the closed forms, before and after a commit, in one run.

`closed_forms.py --parts speed` runs this file twice for each case, with the tree of `--before` and with this one,
each in a process of its own. Cases: masks and blocks of eight configurations on T5 and DistilBERT, fourteen
structured ones on DistilBERT (half of the heads, 5 to 70 % of the neurons), layers of BERT-base's shape, at random.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEFORE = "cdde5fceb84d26a8ed0179780f57ba08422ff77c"
"""The last commit before rows that share a mask were solved directly."""
CASES = ["t5", "distilbert", "structured", "layers"]
NEURONS = [round(0.05 * i, 2) for i in range(1, 15)]
TOKENS, WIDTH, INNER, HEADS = 8192, 768, 3072, 12


def speed(shared: Path, output: Path, before: str, cases: list[str]) -> dict[str, Any]:
    """Each case before and after."""
    found: dict[str, Any] = {}
    with _tree(before) as old:
        for case in cases:
            for name, root in (("before", old), ("after", ROOT)):
                found.setdefault(case, {})[name] = told = _run(root, case, shared.resolve(), output / f"{case}-{name}")
                print(f"  {case:12} {name:7} {json.dumps(told)}", flush=True)
    return found


@contextmanager
def _tree(commit: str) -> Iterator[Path]:
    """The files of a commit, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(["git", "-C", ROOT, "archive", commit], check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
        yield Path(folder)


def _run(root: Path, case: str, shared: Path, output: Path) -> dict[str, Any]:
    command = [sys.executable, "-P", __file__, case, str(shared), str(output.resolve())]
    paths = os.pathsep.join([str(root), str(root / "benchmarks")])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, cwd=root)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def phase(case: str, shared: Path, output: Path) -> dict[str, Any]:
    """Choosing masks and making blocks: seconds, the losses they lead to, and how far memory grew in the blocks."""
    import joint
    from common import losses, plan

    prune, finetune_blocks = _steps()
    shutil.rmtree(output, ignore_errors=True)  # what is in a library is not made again
    task = "distilbert" if case == "structured" else case
    given = argparse.Namespace(task=task, shared=shared, output=output, steps=20)
    runs = getattr(joint, "SeededRuns", None) or joint.Bench  # its name in older trees
    space = runs(given, 1).space(case, 8, criterion="obs", trainer="least_squares")
    if case == "structured":
        neurons = [{"rate": rate, "granularity": "neuron"} for rate in NEURONS]
        plan(space, [{"*attention": 0.5, "*lin1": one} for one in neurons], force=True)
    space.examples("train")
    space.fresh_model()  # what a process does once is no part of it
    masks, _ = _timed(lambda: prune(space))
    before = _memory()
    blocks, done = _timed(lambda: finetune_blocks(space))
    return {
        "masks": masks,
        "blocks": blocks,
        "made": done.summary["tuned"],
        "loss": [round(loss, 4) for loss in losses(space, space.finetuned)],
        "grown_mib": round(_memory() - before),
    }


def layers() -> dict[str, Any]:
    """Layers of BERT-base's shape: seconds to choose and repair heads, neurons and single weights, and the memory."""
    import torch

    try:
        from composer.tensors.brain_surgeon import obs_groups
        from composer.tensors.least_squares import masked_least_squares
        from composer.tensors.weight_order import weight_order
    except ImportError:  # a tree from before modules had folders
        from composer.solve import masked_least_squares  # type: ignore[no-redef]
        from composer.surgeon import obs_groups, weight_order  # type: ignore[no-redef]

    draw = torch.Generator().manual_seed(0)

    def layer(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        X = torch.randn(TOKENS, columns, generator=draw) @ torch.randn(columns, columns, generator=draw)
        return torch.randn(rows, columns, generator=draw) / columns**0.5, (X.T @ X).double()

    found: dict[str, Any] = {}
    for name, rows, columns, groups in (
        ("heads", WIDTH, WIDTH, HEADS),
        ("neurons", WIDTH, INNER, INNER),
        ("out-projection", WIDTH, WIDTH, 0),
        ("first of feed-forward", INNER, WIDTH, 0),
        ("second of feed-forward", WIDTH, INNER, 0),
    ):
        W, G = layer(rows, columns)
        if groups:
            places = torch.arange(columns).reshape(groups, -1)
            choosing, order = _timed(lambda: obs_groups(W, G, places, [groups // 2], damping=0.01).snapshots)  # noqa: B023
            mask = order[groups // 2].keep.repeat_interleave(columns // groups).expand(rows, -1)
        else:
            choosing, order = _timed(lambda: weight_order(W, G, damping=0.01))  # noqa: B023
            mask = order >= order.flatten().median()
        tolerance = _tolerance()
        repairing, _ = _timed(lambda: masked_least_squares(W, G, mask, damping=0.01, tolerance=tolerance))  # noqa: B023
        found[name] = {"choose": choosing, "repair": repairing}
    return found | {"peak_mib": round(_memory())}


def _steps() -> tuple[Any, Any]:
    """The tree's `prune` and `finetune_blocks`."""
    try:
        from composer.steps.prune import prune
        from composer.steps.tune_blocks import finetune_blocks
    except ImportError:
        from composer.steps import finetune_blocks, prune  # type: ignore[no-redef, attr-defined]

    return prune, finetune_blocks


def _tolerance() -> float:
    """At which the tree's blocks are solved."""
    try:
        from composer.training.blocks import moments
    except ImportError:
        from composer.trainers import moments  # type: ignore[no-redef]

    return float(moments.TOLERANCE)


def _timed(work: Callable[[], Any]) -> tuple[list[float], Any]:
    """Wall and processor seconds, and the result: the machine may have other work."""
    began = time.perf_counter(), time.process_time()
    result = work()
    spent = time.perf_counter() - began[0], time.process_time() - began[1]
    return [round(seconds, 2) for seconds in spent], result


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    which, shared_folder, folder = sys.argv[1:]
    print(json.dumps(layers() if which == "layers" else phase(which, Path(shared_folder), Path(folder))))
