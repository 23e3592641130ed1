"""Common sense, zero-shot, through lm-eval (Gao et al. 2021): the likeliest of some answers, by sum and by length.

Problems are read here, in the prompts of lm-eval's tasks of these names; the likelihoods are computed by its model
class around the model in memory, so shrunk models work as any other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError, RecipeError
from ...progress import Progress, log_level
from ...tasks.data.formats import few
from ..uncertainty import mean_of
from .common_sense_rows import SHAPES, Shape
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
    """Problems with several answers, of which one is right; the first of ``shapes`` whose columns are there counts."""

    suite = "common-sense"
    heads = ("language_model", "translation")
    measures = (mean_of("accuracy", "right"), mean_of("acc_norm", "right_by_length"))

    def __init__(self, name: str, heading: str, place: Place, shapes: tuple[Shape, ...]) -> None:
        self.name, self.heading, self.place, self.shapes = name, heading, place, shapes

    def load(self, options: SuiteOptions) -> Problems:
        """Contexts and answers.

        Raises:
            RecipeError: lm-eval is not installed.
        """
        if find_spec("lm_eval") is None:
            raise RecipeError("--suite: common-sense needs lm-eval; pip install 'composer-pruning[eval]'")
        table = self.place.table(options.data)
        shape = next((one for one in self.shapes if set(one.columns) <= set(table.columns)), self.shapes[0])
        rows = rows_of(table, list(shape.columns))
        read, wrong = [], []
        for i, row in enumerate(rows):
            try:
                made = shape.make(row)
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

        from ...tasks.batching import length_limit
        from ...tensors.batches import in_order

        limit = length_limit(subject.tokenizer, subject.base.config)
        cut = 0 if limit is None else sum(_longest(row, subject.tokenizer) > limit for row in problems.rows)
        batches = list(in_order(len(problems), 8 * options.batch_size))
        reads = bool(subject.base.config.get("is_encoder_decoder"))
        details = {"lm_eval": version("lm_eval"), "shots": 0, "prompts_cut": cut}
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
    pairs = [pair for row in rows for pair in _pairs(row)]
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    # It warns of a model in memory, and of each context that it cuts; these are counted in the details.
    with log_level("lm_eval", logging.ERROR):
        model = HFLM(
            pretrained=session.model,
            tokenizer=session.tokenizer,
            backend="seq2seq" if session.reads else "causal",
            batch_size=session.batch_size,
            **more,
        )
        found = iter(model.loglikelihood(asked, disable_tqdm=True))
    return [[float(next(found)[0]) for _ in row["choices"]] for row in rows]


def _longest(row: Row, tokenizer: Any) -> int:
    """Tokens of a problem with its longest answer."""
    return max(len(tokenizer(f"{context}{answer}", verbose=False)["input_ids"]) for context, answer in _pairs(row))


def _pairs(row: Row) -> list[tuple[str, str]]:
    """Context and what follows, for each answer; of WinoGrande the answers stand in the context."""
    if "suffix" in row:
        return [(choice, f" {row['suffix']}") for choice in row["choices"]]
    return [(row["prompt"], f" {choice}") for choice in row["choices"]]


TEST, VALIDATION = ("test", "validation"), ("validation", "test")
"""Which split counts where there are several: as in lm-eval, the test split where its answers are public."""


def _task(name: str, heading: str, hub: str, splits: tuple[str, ...]) -> CommonSenseTask:
    place = Place(name, ("csr", "common-sense", name), (name, *splits), hub)
    return CommonSenseTask(name, heading, place, SHAPES[name])


TASKS = (
    _task("openbookqa", "OpenBookQA", "allenai/openbookqa:main", TEST),
    _task("winogrande", "WinoGrande", "allenai/winogrande:winogrande_xl", VALIDATION),
    _task("boolq", "BoolQ", "google/boolq", VALIDATION),
    _task("arc-easy", "ARC easy", "allenai/ai2_arc:ARC-Easy", TEST),
    _task("arc-challenge", "ARC challenge", "allenai/ai2_arc:ARC-Challenge", TEST),
    _task("hellaswag", "HellaSwag", "Rowan/hellaswag", VALIDATION),
    _task("piqa", "PIQA", "baber/piqa", VALIDATION),
)

SUITE = Suite("common-sense", "Common sense", TASKS, averages=tuple((task.name,) for task in TASKS))
