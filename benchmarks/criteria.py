"""Every criterion on real models: rates, n:m and heads, pruned and repaired, and calibration data.

    python benchmarks/criteria.py [--only llama t5 distilbert] [--jobs 2] [--shared ../shared] [-o .bench/criteria]

A small Llama trained on WikiText-2 (``benchmarks/language_model.py`` makes it: perplexity), a T5 on Multi30K (loss,
BLEU) and a DistilBERT on SST-2 (loss, accuracy). No training step is taken. The table is measured in parts, ``--jobs``
at a time, each a process that shares the cores evenly with the others; each figure is stored as soon as it is
measured, and a killed run goes on. Markdown tables and a picture are made of what is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import criteria_tables
import torch
from criteria_measure import SUBJECTS, CalibratedModel, Figures

from composer.files.environment import machine, versions
from composer.files.jsonfile import read_json, write_json
from composer.pruning.criteria import CRITERIA

SEQUENTIAL = ("wanda", "sparsegpt")
ELSEWHERE = ("wanda", "sparsegpt", "obs")
"""Criteria of the table of calibration data."""
ORDER = ("l1", "l2", "random", "global_l1", "wanda", "sparsegpt", "obs", "taylor")


class Part(NamedTuple):
    """What one process measures in one go."""

    subject: str
    sample: str
    criteria: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its file."""
        return "-".join((self.subject, self.sample, *self.criteria))


def parts(subject: str) -> Iterator[Part]:
    """All parts of a subject, in the order of the tables."""
    yield from (Part(subject, "own", (c,)) for c in sorted(CRITERIA.names(), key=(*ORDER, *CRITERIA.names()).index))
    yield from (Part(subject, "sequential", (criterion,)) for criterion in SEQUENTIAL)
    yield from (Part(subject, sample, ELSEWHERE) for sample in SUBJECTS[subject].elsewhere)


@cache
def bench(process: int, subject: str, shared: Path, output: Path, *, short: bool) -> CalibratedModel:
    """A process keeps data and captures of a model for its next part; its folder is its own."""
    return CalibratedModel(subject, shared, output / "work" / f"{subject}-{process}", short=short)


def measure(part: Part, given: argparse.Namespace) -> str:
    """Measure one part, in a process of the pool."""
    began = time.perf_counter()
    space = bench(os.getpid(), part.subject, given.shared, given.output, short=given.short)
    into = Figures(given.output / "parts" / f"{part.name}.json")
    if part.criteria == ORDER[:1]:
        space.dense(into)
    for criterion in part.criteria:
        if part.sample == "sequential":
            space.sequential(criterion, into)
        else:
            space.criterion(criterion, part.sample, into)
    return f"{part.name}: {time.perf_counter() - began:.0f} s"


def gathered(output: Path, wall: float) -> dict[str, Any]:
    """All stored figures in one file: subject -> sample -> criterion -> shape -> kind -> metric."""
    path = output / "results.json"
    held = read_json(path) if path.is_file() else {}
    subjects: dict[str, Any] = {}
    for part in (part for subject in SUBJECTS for part in parts(subject)):
        file = output / "parts" / f"{part.name}.json"
        for sample, rows in (read_json(file) if file.is_file() else {}).items():
            subjects.setdefault(part.subject, {}).setdefault(sample, {}).update(rows)
    content = {"machine": machine(), "versions": versions(), "wall": held.get("wall", 0.0) + wall, "subjects": subjects}
    write_json(path, content)
    return content


def missing(given: argparse.Namespace) -> Iterator[str]:
    """What has to be made before."""
    for name in given.only:
        folder = SUBJECTS[name].model
        if folder.startswith(".") and not (Path(folder) / "model.safetensors").is_file():
            yield f"{folder}: not there; run python benchmarks/language_model.py"


def start(threads: int) -> None:
    """What each process begins with."""
    torch.set_num_threads(threads)


def main() -> int:
    """Measure the subjects that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("-o", "--output", type=Path, default=Path(".bench/criteria"))
    parser.add_argument("--only", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes [the cores of the machine]")
    parser.add_argument("--short", action="store_true", help="a few minutes: shows that it works, measures nothing")
    given = parser.parse_args()
    if problems := list(missing(given)):
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    start(threads)
    print("machine:", machine(), f"jobs {given.jobs}", "\nversions:", versions(), "\n", flush=True)
    shutil.rmtree(given.output / "work", ignore_errors=True)  # of processes that were killed
    told = began = time.perf_counter()
    # Models whose parts are the longest come first, so that little is left over at the end.
    work = [part for name in reversed(given.only) for part in reversed(list(parts(name)))]
    with ProcessPoolExecutor(given.jobs, get_context("spawn"), start, (threads,)) as pool:
        for done in as_completed([pool.submit(measure, part, given) for part in work]):
            now = time.perf_counter()
            print(done.result(), f"({now - began:.0f} s since the start)", flush=True)
            content = gathered(given.output, now - told)
            told = now
    print(criteria_tables.markdown(content))
    criteria_tables.picture(content, given.output / "criteria.png")
    print(f"\n{content['wall'] / 60:.0f} minutes in all; repeat with: python {' '.join(sys.argv)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
