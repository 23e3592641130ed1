"""The harness held to known answers, on whole data sets.

    python benchmarks/suites_check.py ../shared/data [--only humaneval mbpp gsm8k]

Known solutions of HumanEval and MBPP pass in the sandbox, and solutions that were spoilt fail; the right answers of
GSM8K score 100 %, those off by one 0 %. No model is needed.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from composer.evaluation.suites.code import HumanEval, Mbpp
from composer.evaluation.suites.math import Gsm8k
from composer.evaluation.suites.suite import SuiteOptions
from composer.files.environment import machine, versions


def spoilt(task: Any, row: dict[str, Any]) -> str:
    """A solution whose functions all return nothing."""
    if isinstance(task, HumanEval):
        return "    return None\n"
    names = set(re.findall(r"\bdef (\w+)", row["code"])) | set(
        re.findall(r"\b([A-Za-z_]\w*)\(", " ".join(row["tests"]))
    )
    kept = {"set", "sorted", "tuple", "list", "len", "str", "abs", "round", "isinstance", "math"}
    return row["gold"] + "".join(f"\ndef {name}(*_, **__): return None" for name in sorted(names - kept)) + "\n"


def programs(task: Any, options: SuiteOptions) -> None:
    """Known solutions, and spoilt ones."""
    rows = task.load(options).rows
    for kind in ("known", "spoilt"):
        start, own, failed = time.perf_counter(), processor_seconds(), []
        for row in rows:
            text = row["gold"] if kind == "known" else spoilt(task, {**row, "code": row["gold"]})
            judged = task.judge(row, [text])
            if judged["right"] != (kind == "known"):
                failed.append((row["id"], judged["why"][0]))
        right = len(rows) - len(failed)
        took = f"{time.perf_counter() - start:.0f} s, {processor_seconds() - own:.0f} s of processor time"
        said = f"{right} of {len(rows)} as they should be, {took}"
        print(f"{task.heading}, {kind} solutions: {said}", failed, flush=True)


def processor_seconds() -> float:
    """Of this process and of the programs that it ran."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def sums(options: SuiteOptions) -> None:
    """Right answers, and those off by one."""
    task, rows = Gsm8k(), Gsm8k().load(options).rows
    for shift in (0, 1):
        texts = [f"So it is. The answer is {Decimal(row['gold']) + shift}." for row in rows]
        judged = [task.judge(row, [text]) for row, text in zip(rows, texts, strict=True)]
        strict, flexible = (sum(j[key] for j in judged) / len(rows) for key in ("strict", "flexible"))
        print(f"GSM8K, right answers + {shift}: strict {strict:.1%}, flexible {flexible:.1%} of {len(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=["humaneval", "mbpp", "gsm8k"])
    given = parser.parse_args()
    options = SuiteOptions(data=given.data, run_generated_code=True)
    print(machine(), {name: versions()[name] for name in ("python", "composer")})
    for task in (HumanEval(), Mbpp()):
        if task.name in given.only:
            programs(task, options)
    if "gsm8k" in given.only:
        sums(options)


if __name__ == "__main__":
    main()
