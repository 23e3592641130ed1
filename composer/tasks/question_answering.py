"""Extractive question answering: cross entropy of the answer's first and last token; exact match and F1 (SQuAD v2)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError
from ..tensors.batches import by_length
from ..tensors.forward import answering, to_device_of
from .batching import attention_mask, check_length, pad, usual_length
from .data.formats import Table, few
from .data.options import DataOptions
from .data.splits import Row, find_column, read_split, text_problem
from .data.squad_files import answers_of, locate, unfold
from .metrics.squad import best_match, squad_metrics
from .spans import Question, Windows, best_spans
from .special_tokens import pad_id
from .task import Batch, Examples, Feature, Score, Split, input_lengths

LENGTH = 384
SHOWN_SAMPLES = 3
NO_ANSWER = "(no answer)"
POSITIONS = ("start_positions", "end_positions")


class QuestionAnsweringTask:
    """Questions about contexts that hold the answer as a span, or do not hold it.

    Examples are windows (:class:`composer.tasks.spans.Windows`): a long context makes several of one question, each
    with the question's reference. Sizes count questions.

    Raises:
        DataError: a length or stride that the model or the windows cannot take.
        ModelError: no padding token, no fast tokenizer.
    """

    name = "question_answering"
    main_metric = "answer_f1"

    def __init__(self, options: DataOptions, tokenizer: Any, config: dict[str, Any]) -> None:
        self.options = options
        length = usual_length(options.max_source_length, LENGTH, tokenizer, config)
        check_length("max_source_length", length, tokenizer, config)
        self.windows = Windows(options, tokenizer, length)
        self.scoring: dict[str, Any] = {
            "max_answer_length": options.max_answer_length,
            "null_score_diff_threshold": options.null_score_diff_threshold,
        }
        self._pad = pad_id(tokenizer, config)

    def load(self, split: Split) -> Examples:
        """Read a split and cut it into windows; ``DataError`` says what is wrong with files or answers."""
        read = read_split(self.options, split, self._pick)
        questions = [_question(*row) for row in read.rows]
        # Only answers of a model are looked up in the context; training would hold the offsets for nothing.
        features, cut = self.windows.of(questions, offsets=split != "train")
        rows = [json.dumps(dict(zip(("question", "context", "answers"), row, strict=True))) for row in read.rows]
        references = [rows[number] for number in _numbers(features)]
        source = f"{read.source}; {len(rows):,} questions in {len(features):,} windows"
        return Examples(split, features, references, read.digest, cut, source)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Inputs with ``attention_mask``, each (batch, length); ``start_positions``, ``end_positions`` (batch,)."""
        names = [name for name in features[0] if name not in (*POSITIONS, "question", "null", "starts", "ends")]
        rows: dict[str, list[Any]] = {name: [feature[name] for feature in features] for name in names}
        batch = {name: pad(row, self._pad if name == "input_ids" else 0) for name, row in rows.items()}
        places = {name: torch.tensor([feature[name] for feature in features]) for name in POSITIONS}
        return {**batch, "attention_mask": attention_mask(rows["input_ids"]), **places}

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean over the windows, in nats, of the cross entropies of first and last token (their mean); and how many
        windows there are. Padding is no choice."""
        return _loss(*_logits(model, batch), batch), len(batch["start_positions"])

    def real_tokens(self, batch: Batch) -> dict[str, Tensor]:
        """Bool mask, (batch, length), of whatever stream the model has: all of them read the same tokens."""
        mask = batch["attention_mask"].bool()
        return {"encoder": mask, "decoder": mask}

    def asked(self, batch: Batch) -> None:
        """All answers: two for each window."""

    def score(self, model: nn.Module, data: Examples, *, batch_size: int = 64) -> Score:
        """Exact match and F1 in per cent (:func:`composer.tasks.metrics.squad.squad_metrics`).

        No answer is given where the data has questions without one and ``null`` scores higher than the best span by
        more than ``null_score_diff_threshold``.
        """
        start = time.perf_counter()
        numbers = list(dict.fromkeys(_numbers(data.features)))
        by_number = dict(zip(_numbers(data.features), data.references, strict=True))
        questions = [json.loads(by_number[number]) for number in numbers]
        golds = [[text for text, _ in json.loads(row["answers"])] for row in questions]
        may_refuse = not all(golds)
        contexts = [row["context"] for row in questions]
        answers, loss = self.answers(model, data.features, contexts, may_refuse, batch_size)
        seconds = time.perf_counter() - start
        shown = zip(questions, golds, answers, strict=True)
        details = {
            "examples": len(data),
            "questions": len(questions),
            "questions_without_answer": sum(not own for own in golds),
            "seconds": seconds,
            "seconds_per_example": seconds / max(1, len(data)),
            **self.scoring,
            "may_refuse": may_refuse,
            "samples": [
                {"source": row["question"], "reference": " | ".join(dict.fromkeys(own)), "hypothesis": answer}
                for row, own, answer in list(shown)[:SHOWN_SAMPLES]
            ],
        }
        matches = [(own, best_match(answer, own)) for answer, own in zip(answers, golds, strict=True)]
        samples = [{"gold": own, "exact": exact, "f1": f1} for own, (exact, f1) in matches]
        return Score(squad_metrics(answers, golds), details, loss, samples)

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """Answers to texts that are a question, a tab and its context; ``(no answer)`` where there is none."""
        wrong = [f"text {text!r}: expected are a question, a tab and its context" for text in texts if "\t" not in text]
        if wrong:
            raise DataError(few(wrong))
        questions = [Question(question, context) for question, _, context in (text.partition("\t") for text in texts)]
        features, _ = self.windows.of(questions)
        answers, _ = self.answers(model, features, [question.context for question in questions], True, batch_size)
        return [answer or NO_ANSWER for answer in answers]

    def chance(self) -> float | None:
        """Not known: it depends on the length of each window."""
        return None

    def answers(
        self, model: nn.Module, features: Sequence[Feature], contexts: Sequence[str], may_refuse: bool, batch_size: int
    ) -> tuple[list[str], float]:
        """The answer to each question, empty for none, and the mean loss; questions are in the order of features."""
        index = {number: i for i, number in enumerate(dict.fromkeys(_numbers(features)))}
        best = [(-torch.inf, 0, "")] * len(contexts)
        null = [torch.inf] * len(contexts)
        total = 0.0
        lengths = input_lengths(features)
        with answering(model):
            for chosen in by_length(lengths, batch_size):
                window = [features[i] for i in chosen]
                batch = to_device_of(model, self.collate(window))
                start, end = _logits(model, batch)
                total += _loss(start, end, batch).item() * len(chosen)
                starts: list[Any] = [feature["starts"] for feature in window]
                spans = best_spans(start.cpu(), end.cpu(), pad(starts, -1) >= 0, self.options.max_answer_length)
                results = zip(chosen, *(part.tolist() for part in spans), _null(start, end, window), strict=True)
                for number, first, last, value, nothing in results:
                    feature: Any = features[number]
                    i = index[feature["question"]]
                    text = contexts[i][feature["starts"][first] : feature["ends"][last]].strip()
                    # Of equal scores the first window's wins, in whatever order they are run.
                    best[i] = max(best[i], (value, -number, text))
                    null[i] = min(null[i], nothing)
        threshold = self.options.null_score_diff_threshold
        refused = [may_refuse and none - value > threshold for none, (value, *_) in zip(null, best, strict=True)]
        answers = ["" if no else text for no, (*_, text) in zip(refused, best, strict=True)]
        return answers, total / max(1, len(features))

    def _pick(self, table: Table) -> list[Row]:
        table = unfold(table)
        columns = [find_column(table, None, (name,), name) for name in ("question", "context", "answers")]
        missing = [problem for column in columns if isinstance(column, DataError) for problem in column.problems]
        if missing:
            raise DataError(missing)
        checks = (text_problem(table, name, row) for row in range(len(table)) for name in ("question", "context"))
        problems = few([problem for problem in checks if problem])
        if problems:
            raise DataError(problems)
        answers = [answers_of(table, row) for row in range(len(table))]
        wrong = [answer for answer in answers if isinstance(answer, str)]
        if wrong:
            raise DataError(few(wrong))
        cells = zip(table.columns["question"], table.columns["context"], answers, strict=True)
        return [(question or "", context or "", json.dumps(answer)) for question, context, answer in cells]


def _question(question: str, context: str, answers: str) -> Question:
    """With the place of the first answer, which is what training asks for."""
    known = json.loads(answers)
    return Question(question, context, locate(context, *known[0]) if known else None)


def _numbers(features: Sequence[Feature]) -> list[int]:
    return [feature["question"] for feature in features]  # type: ignore[misc]


def _logits(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scores of each token as first and as last of the answer; padding scores next to -inf."""
    out = model(**{name: tensor for name, tensor in batch.items() if name not in POSITIONS})
    padding = ~batch["attention_mask"].bool()
    lowest = torch.finfo(torch.float32).min
    start, end = (scores.float().masked_fill(padding, lowest) for scores in (out.start_logits, out.end_logits))
    return start, end


def _loss(start: Tensor, end: Tensor, batch: Batch) -> Tensor:
    return (F.cross_entropy(start, batch["start_positions"]) + F.cross_entropy(end, batch["end_positions"])) / 2


def _null(start: Tensor, end: Tensor, features: Sequence[Feature]) -> list[float]:
    """Score of no answer in each window."""
    places = torch.tensor([[feature["null"]] for feature in features], device=start.device)
    return (start.gather(1, places) + end.gather(1, places))[:, 0].tolist()
