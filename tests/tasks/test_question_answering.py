from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from composer.errors import DataError, ModelError
from composer.evaluation.intervals import intervals_of
from composer.tasks import DataOptions
from composer.tasks.question_answering import QuestionAnsweringTask
from composer.tasks.spans import best_spans
from tests.reference import squad as reference

from .conftest import WORDS, Write

QUESTION = "a woman sees"
SHORT = "the man sees a dog in the snow"
LONG = " ".join(random.Random(1).choices(WORDS, k=40))
CLS, SEP = 3, 4


def words_at(context: str, first: int, last: int) -> tuple[str, int]:
    """Words ``first`` to ``last`` of a context, and the character where they start."""
    words = context.split()
    return " ".join(words[first : last + 1]), len(" ".join(words[:first])) + (1 if first else 0)


ROWS: list[tuple[str, str, list[tuple[str, int]]]] = [
    (QUESTION, SHORT, [words_at(SHORT, 3, 4), words_at(SHORT, 4, 4)]),
    ("a dog", SHORT, []),
    (QUESTION, LONG, [words_at(LONG, 20, 22)]),
]


def squad(rows: list[tuple[str, str, list[tuple[str, int]]]]) -> str:
    paragraphs = [
        {
            "context": context,
            "qas": [
                {
                    "question": question,
                    "id": str(i),
                    "is_impossible": not answers,
                    "answers": [{"text": text, "answer_start": start} for text, start in answers],
                    "plausible_answers": [{"text": "man", "answer_start": 4}],
                }
            ],
        }
        for i, (question, context, answers) in enumerate(rows)
    ]
    return json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]})


def lines(rows: list[tuple[str, str, list[tuple[str, int]]]]) -> str:
    return "".join(
        json.dumps(
            {
                "question": question,
                "context": context,
                "answers": {"text": [a for a, _ in answers], "answer_start": [b for _, b in answers]},
            }
        )
        + "\n"
        for question, context, answers in rows
    )


@pytest.fixture
def folder(write: Write) -> Path:
    return write({"dev-v2.0.json": squad(ROWS)})


def make(folder: Path, tokenizer: Any, model: Any, **options: Any) -> QuestionAnsweringTask:
    fields = {"data": str(folder), "max_source_length": 18, "doc_stride": 4, **options}
    return QuestionAnsweringTask(DataOptions.model_validate(fields), tokenizer, model.config.to_dict())


def test_windows_of_a_long_context(folder: Path, bert_tokenizer: Any, answering_bert: Any) -> None:
    data = make(folder, bert_tokenizer, answering_bert).load("valid")
    features: list[Any] = list(data.features)
    # 12 tokens of context in a window, 4 of them shared: words 0-11, 8-19, 16-27, 24-35, 32-39.
    assert [feature["question"] for feature in features] == [0, 1, 2, 2, 2, 2, 2]
    question = bert_tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    context = bert_tokenizer(LONG, add_special_tokens=False)["input_ids"]
    for feature, first in zip(features[2:], (0, 8, 16, 24, 32), strict=True):
        piece = context[first : first + 12]
        assert feature["input_ids"] == [CLS, *question, SEP, *piece, SEP]
        shown = [LONG[a:b] for a, b in zip(feature["starts"], feature["ends"], strict=True) if a >= 0]
        assert shown == LONG.split()[first : first + 12]
    places = [(feature["start_positions"], feature["end_positions"]) for feature in features]
    # The answer's words 20 to 22 stand in the window of words 16 to 27 only; elsewhere there is none.
    assert places == [(8, 9), (0, 0), (0, 0), (0, 0), (9, 11), (0, 0), (0, 0)]
    assert data.source == "dev-v2.0.json; 3 questions in 7 windows"
    assert [json.loads(reference)["question"] for reference in data.references] == [QUESTION, "a dog", *[QUESTION] * 5]


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_real_tokens_are_those_of_any_stack(folder: Path, bert_tokenizer: Any, answering_bert: Any, stack: str) -> None:
    task = make(folder, bert_tokenizer, answering_bert)
    features: list[Any] = list(task.load("valid").features[:2])
    lengths = task.real_tokens(task.collate(features))[stack].sum(1)  # BART and GPT-2 answer questions too
    assert lengths.tolist() == [len(feature["input_ids"]) for feature in features]


def test_both_layouts_give_the_same(write: Write, bert_tokenizer: Any, answering_bert: Any) -> None:
    folder = write({"dev.json": squad(ROWS), "test.jsonl": lines(ROWS), "train.json": squad(ROWS)})
    task = make(folder, bert_tokenizer, answering_bert)
    articles, rows, train = task.load("valid"), task.load("test"), task.load("train")
    assert (articles.features, articles.references, articles.digest) == (rows.features, rows.references, rows.digest)
    assert [set(feature) for feature in train.features] == [set(rows.features[0]) - {"starts", "ends"}] * 7
    assert len(make(folder, bert_tokenizer, answering_bert, test_size=2).load("test")) == 2


def test_long_questions_are_cut(write: Write, bert_tokenizer: Any, answering_bert: Any) -> None:
    folder = write({"dev.json": squad([("a " * 30, SHORT, []), ("the dog", SHORT, [])])})
    data = make(folder, bert_tokenizer, answering_bert).load("valid")
    assert data.truncated == 1
    assert data.features[0]["input_ids"][:9] == [CLS, *[6] * 7, SEP]  # type: ignore[index]


def test_loss_is_the_mean_of_both_cross_entropies(folder: Path, bert_tokenizer: Any, answering_bert: Any) -> None:
    task = make(folder, bert_tokenizer, answering_bert)
    data = task.load("valid")
    expected = []
    for feature in data.features:
        ids = torch.tensor([feature["input_ids"]])
        places = {name: torch.tensor([feature[name]]) for name in ("start_positions", "end_positions")}
        with torch.no_grad():
            expected.append(float(answering_bert(input_ids=ids, **places).loss))
    batch = task.collate(data.features)
    loss, count = task.loss(answering_bert, batch)
    assert count == 7
    assert loss.item() == pytest.approx(sum(expected) / 7, rel=1e-5)
    assert loss.requires_grad
    assert task.real_tokens(batch)["encoder"].sum(1).tolist() == [14, 13, 18, 18, 18, 18, 14]
    assert task.chance() is None


def singly(model: Any, tokenizer: Any, question: str, context: str, longest: int) -> tuple[str, float, float]:
    """Best text, its score, and the score of none, from windows made and searched by hand."""
    ids = tokenizer(question, add_special_tokens=False)["input_ids"]
    words, best, null = context.split(), ("", -1e9), 1e9
    for first in range(0, max(1, len(words) - 4), 8):
        piece = words[first : first + 12]
        tokens = [CLS, *ids, SEP, *tokenizer.convert_tokens_to_ids(piece), SEP]
        with torch.no_grad():
            out = model(input_ids=torch.tensor([tokens]))
        start, end = out.start_logits[0].tolist(), out.end_logits[0].tolist()
        offset = len(ids) + 2
        allowed = [offset <= i < offset + len(piece) for i in range(len(tokens))]
        i, j, value = reference.best_span(start, end, allowed, longest)
        if value > best[1]:
            best = " ".join(piece[i - offset : j - offset + 1]), value
        null = min(null, start[0] + end[0])
    return *best, null


@pytest.mark.parametrize("threshold", [0.0, -1000.0, 1000.0])
def test_score_agrees_with_windows_searched_by_hand(
    folder: Path, bert_tokenizer: Any, answering_bert: Any, threshold: float
) -> None:
    task = make(folder, bert_tokenizer, answering_bert, max_answer_length=3, null_score_diff_threshold=threshold)
    data = task.load("test")
    answers = []
    for question, context, _ in ROWS:
        text, value, null = singly(answering_bert, bert_tokenizer, question, context, 3)
        answers.append("" if null - value > threshold else text)
    if threshold:
        assert all(bool(answer) == (threshold > 0) for answer in answers)
    expected = reference.evaluate(answers, [[text for text, _ in row[2]] for row in ROWS])
    for batch_size in (1, 3, 64):
        score = task.score(answering_bert, data, batch_size=batch_size)
        names = ("exact_match", "answer_f1", "has_answer_exact", "has_answer_f1", "no_answer_exact", "no_answer_f1")
        assert score.metrics == pytest.approx(dict(zip(names, expected.values(), strict=True)))
        assert [sample["hypothesis"] for sample in score.details["samples"]] == answers
        assert score.loss == pytest.approx(task.loss(answering_bert, task.collate(data.features))[0].item(), rel=1e-5)
    assert (score.details["questions"], score.details["questions_without_answer"], len(data)) == (3, 1, 7)
    asked = task.predict(answering_bert, [f"{question}\t{context}" for question, context, _ in ROWS])
    assert asked == [answer or "(no answer)" for answer in answers]
    assert task.scoring == {"max_answer_length": 3, "null_score_diff_threshold": threshold}


def test_where_all_questions_have_answers_one_is_always_given(
    write: Write, bert_tokenizer: Any, answering_bert: Any
) -> None:
    folder = write({"dev.json": squad([ROWS[0], ROWS[2]])})
    task = make(folder, bert_tokenizer, answering_bert, null_score_diff_threshold=-1000.0)
    score = task.score(answering_bert, task.load("valid"))
    assert all(sample["hypothesis"] for sample in score.details["samples"])
    assert score.details["may_refuse"] is False
    assert {"exact_match", "answer_f1", "has_answer_f1"} <= intervals_of(score, task).keys() <= score.metrics.keys()


class Sure(torch.nn.Module):
    """Sure of the token ``word``, and of no answer to the degree ``null``."""

    def __init__(self, word: int, null: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.word, self.null = word, null

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        scores = (input_ids == self.word) * 3.0 + (input_ids == CLS) * self.null
        return type("Out", (), {"start_logits": scores, "end_logits": scores})


def test_the_threshold_is_on_the_difference(folder: Path, bert_tokenizer: Any, answering_bert: Any) -> None:
    dog = bert_tokenizer.convert_tokens_to_ids("dog")
    for null, threshold, answer in [(2.9, 0, "dog"), (3.0, 0, "dog"), (3.1, 0, ""), (3.1, 0.5, "dog"), (2.9, -0.5, "")]:
        task = make(folder, bert_tokenizer, answering_bert, null_score_diff_threshold=threshold)
        score = task.score(Sure(dog, null), task.load("test"))
        assert score.details["samples"][0]["hypothesis"] == answer


@given(st.data())
def test_best_spans_are_those_found_by_trying_all(data: Any) -> None:
    length = data.draw(st.integers(1, 7))
    scores = st.lists(st.integers(-3, 3), min_size=length, max_size=length)
    start, end = data.draw(scores), data.draw(scores)
    allowed = data.draw(st.lists(st.booleans(), min_size=length, max_size=length).filter(any))
    longest = data.draw(st.integers(1, 9))
    tensors = (torch.tensor([row], dtype=torch.float32) for row in (start, end))
    found = best_spans(*tensors, torch.tensor([allowed]), longest)
    assert tuple(part.item() for part in found) == reference.best_span(start, end, allowed, longest)


def test_answers_a_character_away_are_found(write: Write, bert_tokenizer: Any, answering_bert: Any) -> None:
    text, start = words_at(SHORT, 3, 4)
    rows = [(QUESTION, SHORT, [(text, start + shift)]) for shift in (-2, -1, 0, 1, 2)]
    rows.append((QUESTION, SHORT, [(f" {text} ", start - 1)]))
    data = make(write({"dev.json": squad(rows)}), bert_tokenizer, answering_bert).load("valid")
    places = {(feature["start_positions"], feature["end_positions"]) for feature in data.features}
    assert places == {(8, 9)}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "dev.jsonl",
            lines([(QUESTION, SHORT, [("cat", 3)])]),
            r"dev\.jsonl:1: the answer 'cat' is not at char",
        ),
        ("dev.jsonl", lines(ROWS).replace("answer_start", "begin"), r"dev\.jsonl:1: answers is .*; expected are texts"),
        ("dev.jsonl", '{"question": "q", "context": "c"}', r"no answers column 'answers'; columns: question, context$"),
        ("dev.jsonl", '{"question": 1, "context": "c", "answers": []}', r"dev\.jsonl:1: 'question' is int 1"),
        ("dev.json", '{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\]\.paragraphs\[0\]: no 'context' in it"),
        ("dev.json", '{"data": [{"paragraphs": 3}]}', r"data\[0\]: 'paragraphs' is int, expected is a list"),
        ("dev.json", squad(ROWS).replace('"answers"', '"an"'), r"paragraphs\[0\]\.qas\[0\]: no 'answers' in it"),
    ],
)
def test_what_is_wrong_with_files(
    write: Write, bert_tokenizer: Any, answering_bert: Any, file: str, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make(write({file: text}), bert_tokenizer, answering_bert).load("valid")


def test_what_does_not_fit(folder: Path, bert_tokenizer: Any, answering_bert: Any) -> None:
    # 18 tokens less 3 special ones and at most 7 of the question leave 8.
    with pytest.raises(DataError, match=r"doc_stride: got 8; windows of 18 tokens may hold only 8 of the context"):
        make(folder, bert_tokenizer, answering_bert, doc_stride=8)
    with pytest.raises(DataError, match="max_source_length: got 4, too few tokens for a question and its context"):
        make(folder, bert_tokenizer, answering_bert, max_source_length=4)
    with pytest.raises(DataError, match="max_source_length: got 65, the model reads at most 64 tokens"):
        make(folder, bert_tokenizer, answering_bert, max_source_length=65)
    usual = make(folder, bert_tokenizer, answering_bert, max_source_length=None, doc_stride=None)
    assert (usual.windows.length, usual.windows.overlap) == (64, 15)
    with pytest.raises(DataError, match=r"text 'who\?': expected are a question, a tab and its context"):
        usual.predict(answering_bert, ["who?"])

    class Slow:
        is_fast = False
        model_max_length = 512

    with pytest.raises(ModelError, match="needs a fast tokenizer"):
        make(folder, Slow(), answering_bert)
