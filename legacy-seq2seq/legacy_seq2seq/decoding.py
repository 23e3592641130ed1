"""Greedy and beam search, batched. Padding, ``bos`` and unknown words are never answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .data import pad
from .model import Seq2Seq
from .vocabulary import Vocabularies

LONGEST = 60  # words of an answer


def _log_probabilities(model: Seq2Seq, written: Tensor, memory: Tensor, source_ids: Tensor) -> Tensor:
    """Of the next word (rows, vocabulary), after what is written (rows, length)."""
    config = model.config
    logits = model.generator(model.decode(written, memory, source_ids)[:, -1])
    scores = logits.float().log_softmax(-1)
    scores[:, [config.pad_id, config.bos_id, config.unk_id]] = float("-inf")
    return scores


@torch.inference_mode()
def greedy(model: Seq2Seq, source_ids: Tensor, longest: int = LONGEST) -> list[list[int]]:
    """The likeliest word at each step, until ``eos`` (not returned) or ``longest`` words; one list per sentence.

    No answer has more words than the model has positions.
    """
    eos, longest = model.config.eos_id, min(longest, model.config.max_length)
    memory = model.encode(source_ids)
    written = source_ids.new_full((len(source_ids), 1), model.config.bos_id)
    answers: list[list[int]] = [[] for _ in source_ids]
    running = torch.arange(len(source_ids), device=source_ids.device)
    for _ in range(longest):
        best = _log_probabilities(model, written, memory[running], source_ids[running]).argmax(-1)
        on = best != eos
        running, written = running[on], torch.cat((written, best[:, None]), 1)[on]
        for row, word in zip(running.tolist(), best[on].tolist(), strict=True):
            answers[row].append(word)
        if not len(running):
            break
    return answers


@dataclass
class _Finished:
    """The finished answers of one sentence: how many, and the best of them."""

    count: int = 0
    score: float = float("-inf")
    words: list[int] = field(default_factory=list)

    def add(self, score: float, words: list[int]) -> None:
        self.count += 1
        if score > self.score:
            self.score, self.words = score, words


@torch.inference_mode()
def beam(
    model: Seq2Seq, source_ids: Tensor, beams: int = 5, length_penalty: float = 1.0, longest: int = LONGEST
) -> list[list[int]]:
    """The best of ``beams`` finished answers per sentence, by log probability / length ** ``length_penalty``.

    An answer is finished when its ``eos`` (which counts as a word of it) is among the ``beams`` best candidates of a
    step, or at ``longest`` words (or as many as the model has positions). A sentence is left when it has ``beams`` of
    them; one beam is greedy search.
    """
    longest = min(longest, model.config.max_length)
    eos, vocabulary = model.config.eos_id, model.config.target_vocabulary
    found = [_Finished() for _ in source_ids]
    running = torch.arange(len(source_ids), device=source_ids.device)
    memory = model.encode(source_ids).repeat_interleave(beams, 0)
    sources = source_ids.repeat_interleave(beams, 0)
    written = sources.new_full((len(sources), 1), model.config.bos_id)
    totals = torch.full((len(source_ids), beams), float("-inf"), device=source_ids.device)
    totals[:, 0] = 0.0  # the beams of a sentence begin alike: only the first one counts
    for length in range(1, longest + 1):
        scores = _log_probabilities(model, written, memory, sources).view(len(running), beams, vocabulary)
        best, where = (totals[:, :, None] + scores).flatten(1).topk(2 * beams, dim=1)  # at most half of them are `eos`
        ends = where % vocabulary == eos
        first = torch.arange(len(running), device=running.device)[:, None] * beams
        parents = first + where // vocabulary
        for place, rank in (ends & best.isfinite())[:, :beams].nonzero().tolist():
            words = written[parents[place, rank], 1:].tolist()
            found[int(running[place])].add(float(best[place, rank]) / length**length_penalty, words)
        go_on = ends.int().argsort(dim=1, stable=True)[:, :beams]
        totals = best.gather(1, go_on)
        chosen = where.gather(1, go_on) % vocabulary
        written = torch.cat((written[parents.gather(1, go_on).flatten()], chosen.view(-1, 1)), 1)
        open_ = [place for place, sentence in enumerate(running.tolist()) if found[sentence].count < beams]
        if len(open_) < len(running):
            rows = (first[open_] + torch.arange(beams, device=running.device)).flatten()
            running, totals = running[open_], totals[open_]
            memory, sources, written = memory[rows], sources[rows], written[rows]
        if not open_:
            break
    for place, rank in totals.isfinite().nonzero().tolist():
        words = written[place * beams + rank, 1:].tolist()
        found[int(running[place])].add(float(totals[place, rank]) / longest**length_penalty, words)
    return [finished.words for finished in found]


def translate(
    model: Seq2Seq,
    words: Vocabularies,
    texts: Sequence[str],
    beams: int = 1,
    length_penalty: float = 1.0,
    batch_size: int = 64,
) -> list[str]:
    """Translations of the texts, in their order; one beam is greedy search."""
    model.eval()
    device = model.generator.weight.device
    rows = [words.encode_source(text, model.config.max_length) for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    answers: list[str] = [""] * len(rows)
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        source_ids = pad([rows[i] for i in some]).to(device)
        found = greedy(model, source_ids) if beams == 1 else beam(model, source_ids, beams, length_penalty)
        for i, answer in zip(some, found, strict=True):
            answers[i] = words.decode_target(answer)
    return answers
