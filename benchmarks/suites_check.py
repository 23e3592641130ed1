"""The harness held to known answers, on whole data sets: `python benchmarks/suites_check.py ../shared/data`.

Known solutions of HumanEval and MBPP pass in the sandbox, and solutions that were spoilt fail; the right answers of
GSM8K score 100 %, those off by one 0 %. No model is needed.
"""

from __future__ import annotations

import re
import sys
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


def main() -> None:
    options = SuiteOptions(data=Path(sys.argv[1]), run_generated_code=True)
    print(machine(), {name: versions()[name] for name in ("python", "composer")})
    for task in (HumanEval(), Mbpp()):
        rows = task.load(options).rows
        for kind in ("known", "spoilt"):
            start, failed = time.perf_counter(), []
            for row in rows:
                text = row["gold"] if kind == "known" else spoilt(task, {**row, "code": row["gold"]})
                judged = task.judge(row, [text])
                if judged["right"] != (kind == "known"):
                    failed.append((row["id"], judged["why"][0]))
            seconds = time.perf_counter() - start
            right = len(rows) - len(failed)
            print(
                f"{task.heading}, {kind} solutions: {right} of {len(rows)} as they should be, {seconds:.0f} s", failed
            )
    math, rows = Gsm8k(), Gsm8k().load(options).rows
    for shift in (0, 1):
        texts = [f"So it is. The answer is {Decimal(row['gold']) + shift}." for row in rows]
        found = [math.judge(row, [text]) for row, text in zip(rows, texts, strict=True)]
        strict, flexible = (sum(one[key] for one in found) / len(rows) for key in ("strict", "flexible"))
        print(f"GSM8K, right answers + {shift}: strict {strict:.1%}, flexible {flexible:.1%} of {len(rows)}")


if __name__ == "__main__":
    main()
