"""Questions on a text: SQuAD v1.1 and v2.0 (Rajpurkar et al. 2016, 2018), exact match and F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from ...progress import Progress
from ...tasks.data.formats import few
from ...tasks.data.options import DataOptions
from ...tasks.data.squad_files import answers_of, unfold
from ...tasks.metrics.squad import best_match
from ..uncertainty import Measure, mean_of, ratio
from .places import Place, rows_of
from .suite import Problems, Sample, Session, Subject, Suite, SuiteOptions, SuiteTask

if TYPE_CHECKING:
    from torch import nn


def _where(key: str, answered: bool, samples: Sequence[Sample]) -> np.ndarray:
    """A number of each sample, and whether it counts: those with an answer, or those without."""
    kept = [(bool(s["gold"]) == answered, float(s[key])) for s in samples]
    return np.array([(value * counts, float(counts)) for counts, value in kept]).reshape(-1, 2)


def _part(name: str, key: str, answered: bool) -> Measure:
    return Measure(name, lambda samples: _where(key, answered, samples), ratio, scale=100.0)


WHOLE = (mean_of("answer_f1", "f1", 100.0), mean_of("exact_match", "exact", 100.0))
PARTS = (
    _part("has_answer_f1", "f1", True),
    _part("has_answer_exact", "exact", True),
    _part("no_answer_f1", "f1", False),
)
NO_ANSWER_EXACT = _part("no_answer_exact", "exact", False)


@dataclass
class _Asking(Session):
    """Windows of each question, and the task that answers them."""

    task: Any = None
    model: nn.Module | None = None
    problems: Problems | None = None
    windows: Sequence[Sequence[Any]] = ()
    may_refuse: bool = False


class SquadTask(SuiteTask):
    """Questions whose answer is a span of their text; in v2.0 some have none."""

    suite = "squad"
    heads = ("question_answering",)

    def __init__(self, name: str, heading: str, place: Place, measures: tuple[Measure, ...]) -> None:
        self.name, self.heading, self.place, self.measures = name, heading, place, measures

    def load(self, options: SuiteOptions) -> Problems:
        """Questions, their texts and all answers that count as right."""
        table = unfold(self.place.table(options.data))
        rows = rows_of(table, ["question", "context", "answers"])
        read_answers = [answers_of(table, i) for i in range(len(rows))]
        if wrong := [problem for problem in read_answers if isinstance(problem, str)]:
            raise DataError(few(wrong))
        answers = [found for found in read_answers if not isinstance(found, str)]
        read = [
            {"id": i, "prompt": row["question"], "context": row["context"], "gold": [text for text, _ in golds]}
            for i, (row, golds) in enumerate(zip(rows, answers, strict=True))
        ]
        return Problems(read, table.source).first(options.limit)

    def open(self, subject: Subject, problems: Problems, options: SuiteOptions, progress: Progress) -> Session:
        """Cut texts into windows; batches are of questions."""
        from ...tasks.question_answering import QuestionAnsweringTask
        from ...tasks.spans import Question
        from ...tensors.batches import in_order

        task = QuestionAnsweringTask(DataOptions(data="x"), subject.tokenizer, subject.base.config)
        features, _ = task.windows.of([Question(row["prompt"], row["context"]) for row in problems.rows])
        windows: list[list[Any]] = [[] for _ in problems.rows]
        for feature in features:
            windows[feature["question"]].append(feature)  # type: ignore[index]
        # The largest first is not needed here: the task sorts the windows of a batch by length itself.
        batches = list(in_order(len(problems), options.batch_size))
        may_refuse = not all(row["gold"] for row in problems.rows)
        details = {"windows": len(features), **task.scoring, "may_refuse": may_refuse}
        return _Asking(batches, details, task, subject.model, problems, windows, may_refuse)

    def answer(self, session: Session, batch: Sequence[int]) -> list[Sample]:
        """The best span of each question, or none."""
        assert isinstance(session, _Asking)
        assert session.problems
        rows = [session.problems.rows[i] for i in batch]
        windows = [window for i in batch for window in session.windows[i]]
        texts, _ = session.task.answers(
            session.model, windows, [row["context"] for row in rows], session.may_refuse, len(windows)
        )
        return [
            {
                "id": row["id"],
                "prompt": row["prompt"],
                "gold": row["gold"],
                "answer": text,
                **_judged(text, row["gold"]),
            }
            for row, text in zip(rows, texts, strict=True)
        ]

    def gold(self, sample: Sample) -> str:
        return " | ".join(dict.fromkeys(sample["gold"])) or "(no answer)"

    def shown(self, sample: Sample) -> str:
        return sample["answer"] or "(no answer)"

    def chance(self, problems: Problems, base: Any) -> dict[str, float]:
        """Of never answering."""
        none = 100.0 * sum(not row["gold"] for row in problems.rows) / max(1, len(problems))
        parts = {"has_answer_f1": 0.0, "has_answer_exact": 0.0, "no_answer_f1": 100.0}
        return {"answer_f1": none, "exact_match": none} | (parts if len(self.measures) > 2 else {})


def _judged(text: str, golds: Sequence[str]) -> dict[str, Any]:
    exact, f1 = best_match(text, golds)
    return {"exact": exact, "f1": f1, "right": bool(exact)}


TASKS = (
    SquadTask(
        "squad-v1",
        "SQuAD v1.1",
        Place("squad-v1", ("squad", "squad_v1", "squad_v1.1"), ("dev-v1.1", "validation", "dev"), "rajpurkar/squad"),
        WHOLE,
    ),
    SquadTask(
        "squad-v2",
        "SQuAD v2.0",
        Place(
            "squad-v2",
            ("squad_v2", "squad-v2", "squad_v2.0"),
            ("dev-v2.0", "dev-v2.0-cs224n", "validation", "dev"),
            "rajpurkar/squad_v2",
        ),
        (*WHOLE, *PARTS),
    ),
)

SUITE = Suite("squad", "Questions on a text (SQuAD)", TASKS)
