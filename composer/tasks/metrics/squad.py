"""Exact match and F1 of answers as the official evaluation of SQuAD v2.0 defines them (Rajpurkar et al. 2018)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single blanks.

    >>> normalise(" The  U.S. (an ally)")
    'us ally'
    """
    plain = "".join(letter for letter in text.lower() if letter not in PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", plain).split())


def exact_match(answer: str, gold: str) -> float:
    """1.0 where both are the same after :func:`normalise`, else 0.0."""
    return float(normalise(answer) == normalise(gold))


def token_f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall over the bags of words; no answer only equals no answer.

    >>> token_f1("the old man", "a man")
    0.6666666666666666
    """
    words, right = normalise(answer).split(), normalise(gold).split()
    if not words or not right:
        return float(words == right)
    same = sum((Counter(words) & Counter(right)).values())
    return 2 * same / (len(words) + len(right))


def best_match(answer: str, golds: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of an answer, the best over all that count as right; with none of them, no answer is right."""
    right = [gold for gold in golds if normalise(gold)] or [""]
    return max(exact_match(answer, gold) for gold in right), max(token_f1(answer, gold) for gold in right)


def squad_metrics(answers: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """Means in per cent: over all questions, over those with an answer and over those without.

    Args:
        answers: one per question; empty says that there is none.
        golds: per question every answer that counts as right; none where the question has no answer. The best of
            them counts. One of which :func:`normalise` leaves nothing is not looked at.

    Returns:
        ``exact_match`` and ``answer_f1``; ``has_answer_exact``, ``has_answer_f1``, ``no_answer_exact`` and
        ``no_answer_f1``, where there are such questions.
    """
    scores = [(bool(own), *best_match(answer, own)) for answer, own in zip(answers, golds, strict=True)]
    groups = {
        ("exact_match", "answer_f1"): scores,
        ("has_answer_exact", "has_answer_f1"): [score for score in scores if score[0]],
        ("no_answer_exact", "no_answer_f1"): [score for score in scores if not score[0]],
    }
    return {
        name: 100 * sum(score[i] for score in group) / len(group)
        for names, group in groups.items()
        if group
        for i, name in enumerate(names, 1)
    }
