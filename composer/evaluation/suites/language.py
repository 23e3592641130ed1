"""Perplexity on running text, of causal and masked language models: WikiText-2, C4, sums and programs with their
answers, or the user's own folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, ModelError
from ...models.folder import BaseModel
from ...progress import Progress
from ...tasks.architectures import tasks_of
from ...tasks.data.as_text import problem_texts
from ...tasks.data.formats import Table
from ...tasks.data.options import DataOptions
from ...tasks.task import input_lengths
from ..uncertainty import Measure
from .places import Place
from .suite import Problems, Sample, Session, Subject, Suite, SuiteOptions, SuiteTask

if TYPE_CHECKING:
    from torch import nn


def _losses(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([(sample["nats"], sample["tokens"]) for sample in samples], dtype=float).reshape(-1, 2)


def _perplexity(sums: np.ndarray) -> Any:
    from ...tasks.texts import MOST_NATS

    return np.exp(np.minimum(sums[..., 0] / sums[..., 1], MOST_NATS))


PERPLEXITY = Measure("perplexity", _losses, _perplexity)


@dataclass
class _Reading(Session):
    """Windows of text, and the task that asks for their tokens."""

    task: Any = None
    model: nn.Module | None = None
    features: Sequence[Any] = ()
    tokenizer: Any = None


class TextPerplexity(SuiteTask):
    """Exp of the mean loss over the tokens of windows that do not overlap, as ``compose evaluate`` has it.

    A causal model is asked for each token after the first of a window; a masked one for the 15 % that are hidden, the
    same ones for every model with the same tokenizer. Perplexities of models with other tokenizers or of the other kind
    do not compare. One sample is one window: what a token costs depends on its neighbours, so windows are what is drawn
    for the intervals.
    """

    suite = "language"
    heads = ("language_model", "masked_language_model")
    measures = (PERPLEXITY,)

    def __init__(self, name: str, heading: str, place: Place, column: str | None = "text") -> None:
        self.name, self.heading, self.place, self.column = name, heading, place, column

    def load(self, options: SuiteOptions) -> Problems:
        """The texts; they are cut into windows by each model's own tokenizer."""
        table = self.place.table(options.data, texts=True)
        texts = _texts(table, self.column)
        return Problems([{"id": 0, "prompt": text} for text in texts], table.source)

    def shaping(self, options: SuiteOptions) -> dict[str, Any]:
        """Length and number of windows; the draw of what a masked model is asked."""
        return {"window": options.window, "windows": options.limit, "seed": options.seed}

    def open(self, subject: Subject, problems: Problems, options: SuiteOptions, progress: Progress) -> Session:
        """Tokenise and cut into windows, the first ``limit`` of them."""
        from ...tasks.language_model import LanguageModelTask
        from ...tasks.masked_language_model import MaskedLanguageModelTask
        from ...tasks.texts import SEPARATOR
        from ...tensors.batches import by_length

        kind = LanguageModelTask if _is_causal(subject.base) else MaskedLanguageModelTask
        place, split = self.place.find(options.data, texts=True)
        given: dict[str, Any] = {
            "data": place,
            "test_split": split,
            "test_size": options.limit,
            "text_column": self.column,
        }
        asked = DataOptions(**given, max_source_length=options.window, seed=options.seed)
        task = kind(asked, subject.tokenizer, subject.base.config)
        examples, model = task.load("test"), subject.model
        batches = list(by_length(input_lengths(examples.features), options.batch_size))
        details = {"window": task.window, "windows": len(examples), "joined_by": SEPARATOR}
        return _Reading(batches, details, task, model, examples.features, subject.tokenizer)

    def answer(self, session: Session, batch: Sequence[int]) -> list[Sample]:
        """Loss in nats and number of tokens of each window."""
        from torch.nn import functional as F

        from ...tasks.batching import IGNORED
        from ...tensors.forward import answering, to_device_of

        assert isinstance(session, _Reading)
        assert session.model is not None
        inputs = to_device_of(session.model, session.task.collate([session.features[i] for i in batch]))
        labels = session.task.predicted(inputs)
        with answering(session.model):
            logits = session.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            flat = F.cross_entropy(
                logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
            )
        nats = flat.view(labels.shape).double().sum(dim=1)
        if not nats.isfinite().all():
            raise ModelError(f"{self.name}: the model's loss is not finite; nothing can be measured")
        counts = (labels != IGNORED).sum(dim=1)
        return [
            {
                "id": i,
                "prompt": self._beginning(session, i),
                "gold": None,
                "answer": None,
                "nats": loss,
                "tokens": count,
            }
            for i, loss, count in zip(batch, nats.tolist(), counts.tolist(), strict=True)
        ]

    def refusal(self, base: BaseModel) -> str | None:
        """Encoder-decoders, whose loss on running text is another thing."""
        if base.config.get("is_encoder_decoder"):
            architecture = (base.config.get("architectures") or ["?"])[0]
            return f"{base.name} is a {architecture}; needed: a causal or masked language model"
        return super().refusal(base)

    def chance(self, problems: Problems, base: BaseModel) -> dict[str, float]:
        """Of a uniform guess: the size of the vocabulary."""
        size = base.config.get("vocab_size")
        return {"perplexity": float(size)} if size else {}

    def not_comparable(self, first: Sequence[Sample], second: Sequence[Sample]) -> str | None:
        """Windows of other tokens."""
        if reason := super().not_comparable(first, second):
            return reason
        same = (all(a[key] == b[key] for key in ("prompt", "tokens")) for a, b in zip(first, second, strict=True))
        return None if all(same) else "other tokens, so other windows"

    def shown(self, sample: Sample) -> str:
        """Perplexity of the window."""
        return f"perplexity {math.exp(min(sample['nats'] / max(1, sample['tokens']), 700)):.2f}"

    def _beginning(self, session: _Reading, i: int) -> str:
        return str(session.tokenizer.decode(session.features[i]["input_ids"][:48], skip_special_tokens=True))


def _is_causal(base: BaseModel) -> bool:
    return "language_model" in tasks_of(str((base.config.get("architectures") or [""])[0]))


def _texts(table: Table, column: str | None) -> list[str]:
    """The texts of a column; of None those that problems and their answers make."""
    if column is None:
        texts = problem_texts(table)
        if texts is None:
            raise DataError(f"{table.place}: no problems with answers; columns: {', '.join(table.columns)}")
        return texts
    if column not in table.columns:
        raise DataError(f"{table.place}: no column {column!r}; columns: {', '.join(table.columns)}")
    wrong = next((i for i, cell in enumerate(table.columns[column]) if not isinstance(cell, str)), None)
    if wrong is not None:
        raise DataError(f"{table.at(wrong)}: {column!r} is no text")
    return list(table.columns[column])


TASKS = (
    TextPerplexity(
        "wikitext2",
        "WikiText-2",
        Place(
            "wikitext2",
            ("wikitext-2", "wikitext-2-raw-v1", "wikitext2", "wikitext"),
            ("wiki.test", "test"),
            "Salesforce/wikitext:wikitext-2-raw-v1",
        ),
    ),
    TextPerplexity("c4", "C4", Place("c4", ("c4_sample", "c4"), ("c4_en_1000", "validation", "c4-validation"), None)),
    TextPerplexity(
        "gsm8k-text", "GSM8K as text", Place("gsm8k-text", ("gsm8k",), ("test",), "openai/gsm8k:main"), None
    ),
    TextPerplexity(
        "mbpp-text",
        "MBPP as text",
        Place("mbpp-text", ("mbpp",), ("test", "mbpp"), "google-research-datasets/mbpp:full"),
        None,
    ),
    TextPerplexity("text", "Own text", Place("text", ("text",), ("test", "validation", "valid", "text"), None)),
)

SUITE = Suite("language", "Language modelling", TASKS)
