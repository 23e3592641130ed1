"""How good a model is: loss and BLEU on a split."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics import BLEU

from .data import Pair, encode
from .decoding import translate
from .model import Seq2Seq
from .training import validation_loss
from .vocabulary import Vocabularies


def bleu(answers: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Corpus BLEU (0 to 100) and its signature; lower case, since the model knows no other."""
    metric = BLEU(lowercase=True)
    score = float(metric.corpus_score(list(answers), [list(references)]).score)
    return score, str(metric.get_signature())


def evaluate(
    model: Seq2Seq, words: Vocabularies, pairs: Sequence[Pair], *, beams: int = 5, length_penalty: float = 1.0
) -> dict[str, Any]:
    """Loss per token (nats), BLEU and seconds of translating the pairs."""
    start = time.perf_counter()
    answers = translate(model, words, [source for source, _ in pairs], beams, length_penalty)
    seconds = time.perf_counter() - start
    score, signature = bleu(answers, [target for _, target in pairs])
    loss = validation_loss(model, encode(pairs, words, model.config.max_length), 64)
    return {
        "examples": len(pairs),
        "beams": beams,
        "bleu": score,
        "bleu_signature": signature,
        "loss": loss,
        "seconds": seconds,
    }
