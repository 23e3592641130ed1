"""Sums in words: GSM8K (Cobbe et al. 2021) after eight worked examples, as lm-eval's ``gsm8k_cot``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...errors import DataError, shown
from ...tasks.data.formats import few
from ..uncertainty import mean_of
from .gsm8k_shots import SHOTS
from .places import Place, rows_of
from .suite import Problems, Row, Sample, Suite, SuiteOptions
from .writing import WritingTask

GOLD = re.compile(r"#### *(-?[0-9.,]+) *$")
STRICT = re.compile(r"The answer is (\-?[0-9\.\,]+).")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


def plain_number(text: str) -> str:
    """A number without commas, dollar signs and a last full stop: what is compared.

    >>> plain_number("$1,200.")
    '1200'
    """
    return re.sub(r"\.$", "", re.sub(r"[,$]", "", text)).strip()


def strict_answer(text: str) -> str | None:
    """The number after the first ``The answer is``."""
    found = STRICT.search(text)
    return plain_number(found[1]) if found else None


def flexible_answer(text: str) -> str | None:
    """The last number.

    >>> flexible_answer("so 3 and 4 make $7.")
    '7'
    """
    found = [match[0] for match in FLEXIBLE.finditer(text)]
    return plain_number(found[-1]) if found else None


class Gsm8k(WritingTask):
    """The number that a problem ends in: where the model says so (strict), or the last one it writes (flexible)."""

    name, suite, heading = "gsm8k", "math", "GSM8K"
    measures = (mean_of("strict_match", "strict"), mean_of("flexible_match", "flexible"))
    stops = ("Q:", "</s>", "<|im_end|>")
    place = Place("gsm8k", ("gsm8k",), ("test",), "openai/gsm8k:main")

    def load(self, options: SuiteOptions) -> Problems:
        """Problems with their numbers."""
        table = self.place.table(options.data)
        rows = rows_of(table, ["question", "answer"])
        golds = [GOLD.search(str(row["answer"])) for row in rows]
        wrong = [i for i, gold in enumerate(golds) if gold is None]
        if wrong:
            raise DataError(
                few(
                    [
                        f"{table.at(i)}: answer is {shown(rows[i]['answer'])}; it must end in '#### NUMBER'"
                        for i in wrong
                    ]
                )
            )
        shots = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in SHOTS)
        read = [
            {"id": i, "prompt": f"{shots}Q: {row['question']}\nA:", "gold": plain_number(gold[1] if gold else "")}
            for i, (row, gold) in enumerate(zip(rows, golds, strict=True))
        ]
        return Problems(read, table.source).first(options.limit)

    def judge(self, row: Row, texts: Sequence[str]) -> dict[str, Any]:
        strict, flexible = strict_answer(texts[0]), flexible_answer(texts[0])
        right = strict == row["gold"]
        return {"answer": texts[0], "strict": right, "flexible": flexible == row["gold"], "right": right}

    def chance(self, problems: Problems, base: Any) -> dict[str, float]:
        """None: no number is likely."""
        return {"strict_match": 0.0, "flexible_match": 0.0}

    def problem(self, sample: Sample) -> str:
        """Without the worked examples."""
        return str(sample["prompt"]).rpartition("\n\nQ: ")[2].removesuffix("\nA:")

    def shown(self, sample: Sample) -> str:
        """The last number, and the text."""
        return f"{flexible_answer(sample['answer'])}: {sample['answer']}"


SUITE = Suite("math", "Mathematics", (Gsm8k(),))
