"""Common sense, zero-shot, through lm-eval (Gao et al. 2021): the likeliest of some answers, by sum and by length.

Problems are read here, in the prompts of lm-eval's tasks of these names; the likelihoods are computed by its model
class around the model in memory, so shrunk models work as any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError, RecipeError
from ...progress import Progress
from ...tasks.data.formats import few
from ..uncertainty import mean_of
from .lm_eval_files import write_lm_eval_files
from .places import Place, rows_of
from .suite import Problems, Row, Sample, Session, Subject, Suite, SuiteOptions, SuiteTask

if TYPE_CHECKING:
    from torch import nn


@dataclass
class _Judging(Session):
    """What lm-eval needs."""

    problems: Problems | None = None
    model: nn.Module | None = None
    tokenizer: Any = None
    batch_size: int = 32
    reads: bool = False
    """Whether an encoder reads the context."""


class CommonSenseTask(SuiteTask):
    """Problems with several answers, of which one is right; ``make`` reads one row."""

    suite = "common-sense"
    heads = ("language_model", "translation")
    measures = (mean_of("accuracy", "right"), mean_of("acc_norm", "right_by_length"))

    def __init__(
        self, name: str, heading: str, place: Place, columns: tuple[str, ...], make: Callable[[Row], dict[str, Any]]
    ) -> None:
        self.name, self.heading, self.place, self.columns, self.make = name, heading, place, columns, make

    def load(self, options: SuiteOptions) -> Problems:
        """Contexts and answers.

        Raises:
            RecipeError: lm-eval is not installed.
        """
        if find_spec("lm_eval") is None:
            raise RecipeError("--suite: common-sense needs lm-eval; pip install 'composer-pruning[eval]'")
        table = self.place.table(options.data)
        rows = rows_of(table, list(self.columns))
        read, wrong = [], []
        for i, row in enumerate(rows):
            try:
                made = self.make(row)
                if not 0 <= made["gold"] < len(made["choices"]):
                    raise ValueError(f"the right answer is {made['gold']} of {len(made['choices'])}")
                read.append({"id": i, **made})
            except (KeyError, ValueError, TypeError, IndexError) as bad:
                wrong.append(f"{table.at(i)}: cannot be read as a problem of {self.name}: {bad}")
        if wrong:
            raise DataError(few(wrong))
        return Problems(read, table.source).first(options.limit)

    def open(self, subject: Subject, problems: Problems, options: SuiteOptions, progress: Progress) -> Session:
        """Pieces of the problems, so that a killed run goes on."""
        from importlib.metadata import version

        from ...tensors.batches import in_order

        batches = list(in_order(len(problems), 8 * options.batch_size))
        reads = bool(subject.base.config.get("is_encoder_decoder"))
        details = {"lm_eval": version("lm_eval"), "shots": 0}
        return _Judging(batches, details, problems, subject.model, subject.tokenizer, options.batch_size, reads)

    def answer(self, session: Session, batch: Sequence[int]) -> list[Sample]:
        """Log-likelihood of each answer; the largest is the model's, and the largest for each byte."""
        assert isinstance(session, _Judging)
        assert session.problems
        rows = [session.problems.rows[i] for i in batch]
        found = _likelihoods(session, rows)
        return [_sample(row, likely) for row, likely in zip(rows, found, strict=True)]

    def chance(self, problems: Problems, base: Any) -> dict[str, float]:
        """Of guessing."""
        share = sum(1 / len(row["choices"]) for row in problems.rows) / max(1, len(problems))
        return {"accuracy": share, "acc_norm": share}

    def write_also(
        self, folder: Path, samples: Sequence[Sample], result: Mapping[str, Any], options: SuiteOptions
    ) -> None:
        """lm-eval's own result files."""
        write_lm_eval_files(folder, self.name, self.version, samples, result, options.limit)

    def gold(self, sample: Sample) -> str:
        return str(sample["choices"][sample["gold"]])

    def shown(self, sample: Sample) -> str:
        return str(sample["choices"][sample["answer"]])


def _sample(row: Row, likely: Sequence[float]) -> Sample:
    lengths = [max(1, len(choice.encode())) for choice in row["choices"]]
    answer = max(range(len(likely)), key=likely.__getitem__)
    by_length = max(range(len(likely)), key=lambda i: likely[i] / lengths[i])
    kept = {key: row[key] for key in ("id", "prompt", "gold", "choices")}
    right = {"right": answer == row["gold"], "right_by_length": by_length == row["gold"]}
    return {**kept, "answer": answer, "log_likelihoods": list(likely), **right}


def _likelihoods(session: _Judging, rows: Sequence[Row]) -> list[list[float]]:
    """Of each answer of each row, by lm-eval."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    # A tokenizer that ends every text would end the context too, and an answer would lose its first token.
    ends = session.tokenizer("a")["input_ids"][-1] == session.tokenizer.eos_token_id
    more: dict[str, Any] = {"add_bos_token": False} if ends and not session.reads else {}
    if session.tokenizer.bos_token_id is None and session.tokenizer.eos_token_id is None:
        # lm-eval wants a token that stands before empty contexts, which none here is.
        more["prefix_token_id"] = session.tokenizer.pad_token_id or 0
    model = HFLM(
        pretrained=session.model,
        tokenizer=session.tokenizer,
        backend="seq2seq" if session.reads else "causal",
        batch_size=session.batch_size,
        **more,
    )
    pairs = [pair for row in rows for pair in _pairs(row)]
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    found = iter(model.loglikelihood(asked, disable_tqdm=True))
    return [[float(next(found)[0]) for _ in row["choices"]] for row in rows]


def _pairs(row: Row) -> list[tuple[str, str]]:
    """Context and what follows, for each answer; of WinoGrande the answers stand in the context."""
    if "suffix" in row:
        return [(choice, f" {row['suffix']}") for choice in row["choices"]]
    return [(row["prompt"], f" {choice}") for choice in row["choices"]]


def _choices(question: str, style: str) -> Callable[[Row], dict[str, Any]]:
    """Rows with ``choices`` and the number of the right one as ``answer``."""

    def make(row: Row) -> dict[str, Any]:
        context = style.format(str(row[question]))
        return {"prompt": context, "choices": [str(c) for c in row["choices"]], "gold": int(row["answer"])}

    return make


def _boolq(row: Row) -> dict[str, Any]:
    prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return {"prompt": prompt, "choices": ["no", "yes"], "gold": int(bool(row["answer"]))}


def _winogrande(row: Row) -> dict[str, Any]:
    before, after = str(row["question"]).split("_", 1)
    contexts = [f"{before}{choice}" for choice in row["choices"]]
    return {"prompt": row["question"], "choices": contexts, "suffix": after.strip(), "gold": int(row["answer"])}


def _hellaswag(row: Row) -> dict[str, Any]:
    context = f"{row['activity_label']}: {row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    return {"prompt": _clean(context), "choices": [_clean(e) for e in row["endings"]], "gold": int(row["label"])}


def _clean(text: str) -> str:
    """Without the marks of WikiHow, as lm-eval has it."""
    plain = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return plain.replace("  ", " ")


def _task(
    name: str, heading: str, make: Callable[[Row], dict[str, Any]], columns: tuple[str, ...] = ()
) -> CommonSenseTask:
    place = Place(name, ("csr", "common-sense", name), (name, "validation", "test"))
    return CommonSenseTask(name, heading, place, columns or ("question", "choices", "answer"), make)


ASKED = "Question: {}\nAnswer:"
TASKS = (
    _task("openbookqa", "OpenBookQA", _choices("question", "{}")),
    _task("winogrande", "WinoGrande", _winogrande),
    _task("boolq", "BoolQ", _boolq, ("question", "passage", "answer")),
    _task("arc-easy", "ARC easy", _choices("question", ASKED)),
    _task("arc-challenge", "ARC challenge", _choices("question", ASKED)),
    _task("hellaswag", "HellaSwag", _hellaswag, ("activity_label", "ctx_a", "ctx_b", "endings", "label")),
    _task("piqa", "PIQA", _choices("question", ASKED)),
)

SUITE = Suite("common-sense", "Common sense", TASKS, averages=tuple((task.name,) for task in TASKS))
