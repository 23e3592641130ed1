"""Exact match and F1 against an evaluation written from its description in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.tasks.metrics.squad import normalise, squad_metrics
from tests.reference import squad as reference

OFFICIAL = {
    "exact_match": "exact",
    "answer_f1": "f1",
    "has_answer_exact": "HasAns_exact",
    "has_answer_f1": "HasAns_f1",
    "no_answer_exact": "NoAns_exact",
    "no_answer_f1": "NoAns_f1",
}

CASES: list[tuple[str, list[str], float, float]] = [
    # answer, right answers, exact match, F1
    ("France", ["France", "France"], 1, 1),
    ("the  FRANCE.", ["France"], 1, 1),
    ("in the 10th and 11th centuries", ["10th and 11th centuries"], 0, 8 / 9),
    ("10th", ["the first half of the 10th century", "10th century"], 0, 2 / 3),
    ("10th 10th", ["10th century 10th"], 0, 4 / 5),
    ("Norse", ["Denmark"], 0, 0),
    ("", [], 1, 1),
    ("Norse", [], 0, 0),
    ("The", [], 1, 1),  # nothing is left of it
    ("", ["France"], 0, 0),
    ("", ["the"], 1, 1),  # no right answer is left
    ("a", ["the", "Norse"], 0, 0),
    ("U.S.", ["US"], 1, 1),
    ("co-operation", ["cooperation"], 1, 1),
    ("theory", ["ory"], 0, 0),
    ("1–a", ["1–"], 1, 1),  # a dash outside of ASCII stays, and ends a word
]


@pytest.mark.parametrize(("answer", "right", "exact", "f1"), CASES)
def test_by_hand(answer: str, right: list[str], exact: float, f1: float) -> None:
    found = squad_metrics([answer], [right])
    assert (found["exact_match"], found["answer_f1"]) == pytest.approx((100 * exact, 100 * f1))
    assert {OFFICIAL[name]: value for name, value in found.items()} == pytest.approx(
        reference.evaluate([answer], [right])
    )


def test_means_over_all_and_by_whether_there_is_an_answer() -> None:
    answers, right = [case[0] for case in CASES], [case[1] for case in CASES]
    found = squad_metrics(answers, right)
    with_answer = [case for case in CASES if case[1]]
    assert found["exact_match"] == pytest.approx(100 * sum(case[2] for case in CASES) / len(CASES))
    assert found["has_answer_f1"] == pytest.approx(100 * sum(case[3] for case in with_answer) / len(with_answer))
    assert found["no_answer_exact"] == pytest.approx(100 * 2 / 3)
    assert {OFFICIAL[name]: value for name, value in found.items()} == pytest.approx(reference.evaluate(answers, right))


def test_a_group_without_questions_has_no_figures() -> None:
    assert squad_metrics(["x"], [["x"]]).keys() == {"exact_match", "answer_f1", "has_answer_exact", "has_answer_f1"}


WORD = st.sampled_from(["a", "the", "An", "man", "dog", "U.S.", "dog-man", "über", "–", "\t", "\u00a0", "7", "_", ""])
TEXT = st.lists(WORD, max_size=5).map(" ".join) | st.text("aAnthe .-–_é\n1", max_size=8)


@given(st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=3)), min_size=1, max_size=6))
def test_any_answers(rows: list[tuple[str, list[str]]]) -> None:
    answers, right = [row[0] for row in rows], [row[1] for row in rows]
    found = {OFFICIAL[name]: value for name, value in squad_metrics(answers, right).items()}
    assert found == pytest.approx(reference.evaluate(answers, right))


@given(TEXT)
def test_normalising_leaves_the_words(text: str) -> None:
    assert normalise(text).split() == reference.words(text)
