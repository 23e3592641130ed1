"""Questions and contexts as windows of tokens, and the best span of tokens in a window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, ModelError
from ..tensors.batches import in_order
from .data.options import DataOptions
from .task import Feature

LONGEST_QUESTION = 64
"""Tokens at which a question is cut."""
OVERLAP = 128
"""Tokens of the context that neighbouring windows share where nothing is said: those of the published runs on SQuAD."""
AT_ONCE = 256
"""Questions that are tokenised in one call."""


@dataclass(frozen=True)
class Question:
    """A question about a context, with the characters (start, end) of its answer there, if it has one."""

    text: str
    context: str
    answer: tuple[int, int] | None = None


class Windows:
    """Cuts question and context into windows of at most ``length`` tokens: the question, and a piece of context.

    Neighbouring pieces share ``doc_stride`` tokens. Questions are cut at 64 tokens, or at half a window.

    Raises:
        DataError: windows without room for a context, or that would not move on.
        ModelError: a tokenizer that does not say which characters a token stands for.
    """

    def __init__(self, options: DataOptions, tokenizer: Any, length: int) -> None:
        if not tokenizer.is_fast:
            raise ModelError("question answering needs a fast tokenizer (tokenizer.json)")
        self.length = length
        free = length - tokenizer.num_special_tokens_to_add(pair=True)
        self.longest_question = min(LONGEST_QUESTION, free // 2)
        room = free - self.longest_question
        if self.longest_question < 1:
            raise DataError(f"max_source_length: got {length}, too few tokens for a question and its context")
        self.overlap = min(OVERLAP, room // 2) if options.doc_stride is None else options.doc_stride
        if self.overlap >= room:
            raise DataError(
                f"doc_stride: got {self.overlap}; windows of {length} tokens may hold only {room} of the context; "
                "allowed: less than that"
            )
        self._tokenizer = tokenizer
        self._inputs = [name for name in tokenizer.model_input_names if name != "attention_mask"]

    def of(self, questions: Sequence[Question], *, offsets: bool = True) -> tuple[list[Feature], int]:
        """All windows in order, and how many questions were cut.

        A window's feature holds the model's inputs, ``question`` (index), ``null`` (the token that stands for no
        answer), ``start_positions`` and ``end_positions`` (tokens of the answer; ``null`` where the window does not
        hold all of it) and, with ``offsets``, ``starts`` and ``ends``: each token's characters in the context, -1
        outside of it.
        """
        features: list[Feature] = []
        cut = 0
        for chunk in in_order(len(questions), AT_ONCE):
            texts = [self._shortened(questions[i].text) for i in chunk]
            cut += sum(text != questions[i].text for i, text in zip(chunk, texts, strict=True))
            features += self._chunk([questions[i] for i in chunk], texts, chunk.start, offsets)
        return features, cut

    def _shortened(self, text: str) -> str:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in encoded["offset_mapping"]]
        return text if len(ends) <= self.longest_question else text[: ends[self.longest_question - 1]]

    def _chunk(self, questions: list[Question], texts: list[str], first: int, offsets: bool) -> Iterator[Feature]:
        encoded = self._tokenizer(
            texts,
            [question.context for question in questions],
            truncation="only_second",
            max_length=self.length,
            stride=self.overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for window, i in enumerate(encoded["overflow_to_sample_mapping"]):
            feature: Feature = {name: encoded[name][window] for name in self._inputs if name in encoded}
            pieces = zip(encoded["offset_mapping"][window], encoded.sequence_ids(window), strict=True)
            spans = [tuple(span) if part == 1 else (-1, -1) for span, part in pieces]
            ids: Any = feature["input_ids"]
            cls = self._tokenizer.cls_token_id
            null = ids.index(cls) if cls in ids else 0
            start, end = _tokens(spans, questions[i].answer) or (null, null)
            feature |= {"question": first + i, "null": null, "start_positions": start, "end_positions": end}
            if offsets:
                feature |= {"starts": [a for a, _ in spans], "ends": [b for _, b in spans]}
            yield feature


def _tokens(spans: Sequence[tuple[int, int]], answer: tuple[int, int] | None) -> tuple[int, int] | None:
    """First and last token of an answer's characters; None where the window does not hold all of them."""
    context = [i for i, (start, end) in enumerate(spans) if end > start >= 0]
    if answer is None or not context or answer[0] < spans[context[0]][0] or answer[1] > spans[context[-1]][1]:
        return None
    covering = [i for i in context if spans[i][0] < answer[1] and spans[i][1] > answer[0]]
    return (covering[0], covering[-1]) if covering else None


def best_spans(start: Tensor, end: Tensor, allowed: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The span of each window for which start and end score highest together.

    Args:
        start: scores of each token as the first, (windows, length).
        end: scores of each token as the last, (windows, length).
        allowed: tokens that may stand in an answer, (windows, length).
        longest: most tokens of a span.

    Returns:
        First token, last token and score of the best span, (windows,) each; the score is -inf where no token is
        allowed.
    """
    length = start.shape[1]
    scores = start[:, :, None] + end[:, None, :]  # (windows, first, last)
    # Above the diagonal the last token comes after the first, and the band ends where the span has ``longest`` tokens.
    band = torch.ones(length, length, dtype=torch.bool, device=start.device).triu().tril(longest - 1)
    scores = scores.masked_fill(~(band & allowed[:, :, None] & allowed[:, None, :]), -torch.inf)
    best = scores.flatten(1).max(dim=1)
    return best.indices // length, best.indices % length, best.values
