"""The evaluation of SQuAD v2.0, from its description in words: exact fractions, no regular expressions.

An answer is put into lower case, loses the 32 ASCII punctuation marks, the words a, an and the, and all blanks but
one between words. Exact match asks whether two such answers are the same. F1 is the harmonic mean of precision and
recall of the predicted words against the right ones, both as multisets; where either has no word, it is 1 if both
have none, else 0. A question's score is its best over the right answers that are not empty after this; a question
that has none of these has the empty answer as the right one. Scores are averaged over all questions, and over those
with and those without answers, in per cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby
from statistics import mean

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def words(text: str) -> list[str]:
    """The words that count. An article is a maximal run of letters and digits, whatever stands beside it."""
    plain = text.lower()
    for mark in PUNCTUATION:
        plain = plain.replace(mark, "")
    runs = ["".join(run) for _, run in groupby(plain, key=str.isalnum)]
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def exact(answer: str, right: str) -> Fraction:
    return Fraction(words(answer) == words(right))


def f1(answer: str, right: str) -> Fraction:
    given, wanted = words(answer), words(right)
    if not given or not wanted:
        return Fraction(given == wanted)
    left, common = list(wanted), 0
    for word in given:
        if word in left:
            left.remove(word)
            common += 1
    if not common:
        return Fraction(0)
    precision, recall = Fraction(common, len(given)), Fraction(common, len(wanted))
    return 2 * precision * recall / (precision + recall)


def evaluate(answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> dict[str, float]:
    """The figures that the evaluation prints, under its own names."""
    table = []
    for answer, golds in zip(answers, wanted, strict=True):
        right = [gold for gold in golds if words(gold)]
        right = right if right else [""]
        best = max(exact(answer, gold) for gold in right), max(f1(answer, gold) for gold in right)
        table.append((len(golds) > 0, best))
    out: dict[str, float] = {}
    for prefix, kinds in (("", (True, False)), ("HasAns_", (True,)), ("NoAns_", (False,))):
        group = [best for kind, best in table if kind in kinds]
        if group:
            out[f"{prefix}exact"] = float(100 * mean(best[0] for best in group))
            out[f"{prefix}f1"] = float(100 * mean(best[1] for best in group))
    return out


def best_span(
    start: Sequence[float], end: Sequence[float], allowed: Sequence[bool], longest: int
) -> tuple[int, int, float]:
    """First token, last token and score of the best span, by trying all."""
    found = None
    for i in range(len(start)):
        for j in range(i, min(len(end), i + longest)):
            value = start[i] + end[j]
            if allowed[i] and allowed[j] and (found is None or value > found[2]):
                found = (i, j, value)
    assert found is not None
    return found
