"""Programs: HumanEval (Chen et al. 2021) and MBPP (Austin et al. 2021), run in the sandbox and measured by pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ...errors import RecipeError
from ..sandbox.run import Limits, run_program
from ..uncertainty import Measure, ratio
from .places import MissingDataError, Place, rows_of
from .suite import Problems, Row, Sample, Suite, SuiteOptions
from .writing import WritingTask


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate that one of ``k`` programs is right, where ``c`` of ``n`` are: 1 - C(n-c, k) / C(n, k).

    >>> round(pass_at_k(10, 3, 1), 12), pass_at_k(2, 1, 2)
    (0.3, 1.0)
    """
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def _chances(k: int, samples: Sequence[Sample]) -> np.ndarray:
    return np.array([(pass_at_k(len(s["passed"]), sum(s["passed"]), k), 1.0) for s in samples]).reshape(-1, 2)


class CodeTask(WritingTask):
    """Write a function that passes tests; nothing is run unless the user has asked for it."""

    suite = "code"
    heads = ("language_model",)
    most = 512
    limits = Limits()
    measures = (Measure("pass@1", partial(_chances, 1), ratio),)
    _weak = False

    def load(self, options: SuiteOptions) -> Problems:
        """The problems, if programs may be run here.

        Raises:
            RecipeError: without the flag, or with a ``k`` above the number of samples.
            SandboxError: this machine lacks a part of the sandbox.
        """
        if not options.run_generated_code:
            raise RecipeError(
                f"--suite: code: {self.name} runs programs that a model wrote, in a sandbox, and only when asked to; "
                "nothing was run: add --run-generated-code"
            )
        if wrong := [k for k in options.k if not 1 <= k <= options.samples]:
            raise RecipeError(f"--k: got {wrong[0]}; allowed: 1 to {options.samples}, the number of --samples")
        self._weak = options.weak_sandbox
        run_program("import math, re, typing, collections, heapq, random", self.limits, weak=self._weak)
        return self.problems(options).first(options.limit)

    def problems(self, options: SuiteOptions) -> Problems:
        """The problems, with prompts, tests and known solutions."""
        raise NotImplementedError

    def program(self, row: Row, text: str) -> str:
        """The whole program: what was written, and its tests."""
        raise NotImplementedError

    def samples(self, options: SuiteOptions) -> int:
        return options.samples

    def measures_for(self, options: SuiteOptions) -> tuple[Measure, ...]:
        return tuple(Measure(f"pass@{k}", partial(_chances, k), ratio) for k in options.k)

    def shaping(self, options: SuiteOptions) -> dict[str, Any]:
        """Those of writing, k, and what a program may use."""
        return {**super().shaping(options), "k": list(options.k), "seconds": self.limits.seconds}

    def judge(self, row: Row, texts: Sequence[str]) -> dict[str, Any]:
        """Run each program."""
        outcomes = [run_program(self.program(row, text), self.limits, weak=self._weak) for text in texts]
        return {
            "answer": texts[0],
            "answers": list(texts),
            "passed": [outcome.passed for outcome in outcomes],
            "why": [outcome.why for outcome in outcomes],
            "right": outcomes[0].passed,
        }

    def shown(self, sample: Sample) -> str:
        """What came of each program, and the first of them."""
        return f"{', '.join(sample['why'])}: {sample['answer']}"

    def chance(self, problems: Problems, base: Any) -> dict[str, float]:
        """None."""
        return {"pass@1": 0.0}


class HumanEval(CodeTask):
    """Complete a function from its head and docstring."""

    name, heading = "humaneval", "HumanEval"
    stops = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    place = Place(
        "humaneval", ("humaneval", "HumanEval", "human-eval"), ("HumanEval", "test"), "openai/openai_humaneval"
    )

    def problems(self, options: SuiteOptions) -> Problems:
        table = self.place.table(options.data)
        rows = rows_of(table, ["task_id", "prompt", "entry_point", "canonical_solution", "test"])
        read = [{**row, "id": row["task_id"], "gold": row["canonical_solution"]} for row in rows]
        return Problems(read, table.source)

    def program(self, row: Row, text: str) -> str:
        return f"{row['prompt']}{text}\n{row['test']}\ncheck({row['entry_point']})\n"


SHOTS = (2, 3, 4)
"""Problems of MBPP that stand before each prompt, as the paper has it."""


class Mbpp(CodeTask):
    """Write a function from a sentence and its three tests, after three examples (problems 11 to 510)."""

    name, heading = "mbpp", "MBPP"
    stops = ("[DONE]", "\nclass", "\nassert", '\n"""', "\nprint", "\nif __name__")
    place = Place("mbpp", ("mbpp",), ("mbpp", "test"), "google-research-datasets/mbpp:full")

    def problems(self, options: SuiteOptions) -> Problems:
        table = self.place.table(options.data)
        needed = ["task_id", "text", "code", "test_list"]
        rows = rows_of(table, needed, ["test_setup_code"])
        examples = "".join(self._example(row, row["code"]) for row in self._shots(rows, needed, options))
        asked = [row for row in rows if 11 <= int(row["task_id"]) <= 510]
        read = [
            {
                "id": row["task_id"],
                "prompt": examples + self._example(row, None),
                "gold": row["code"],
                "setup": row.get("test_setup_code") or "",
                "tests": list(row["test_list"]),
            }
            for row in asked
        ]
        return Problems(read, table.source)

    def _shots(self, rows: Sequence[Row], needed: list[str], options: SuiteOptions) -> list[Row]:
        found = [row for row in rows if int(row["task_id"]) in SHOTS]
        if found:
            return found
        try:
            place = Place(self.name, self.place.folders, ("prompt",), self.place.hub)
            return [row for row in rows_of(place.table(options.data), needed) if int(row["task_id"]) in SHOTS]
        except MissingDataError:
            return []

    @staticmethod
    def _example(row: Row, code: str | None) -> str:
        tests = "\n".join(row["test_list"])
        asked = f"You are an expert Python programmer, and here is your task: {row['text']} "
        asked += "Your code should pass these tests:"
        answer = "" if code is None else f"{code}\n[DONE]\n\n"
        return f"{asked}\n\n{tests}\n[BEGIN]\n{answer}".replace("\r\n", "\n")

    def problem(self, sample: Sample) -> str:
        """Without the examples and the words around it."""
        return str(sample["prompt"]).rpartition("[DONE]")[2].partition("your task: ")[2].removesuffix("\n[BEGIN]\n")

    def program(self, row: Row, text: str) -> str:
        return "\n".join([text, row["setup"], *row["tests"], ""])


SUITE = Suite("code", "Code", (HumanEval(), Mbpp()))
