"""Tasks whose answers are written: prompts in batches, the cache of keys and values on, padding where the model expects
it (before the prompt in a decoder, after it where an encoder reads it), stop strings, samples with a seed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import ModelError
from ...files.jsonfile import digest_of
from ...progress import Progress
from .suite import Problems, Row, Sample, Session, Subject, SuiteOptions, SuiteTask

if TYPE_CHECKING:
    from torch import nn

LOOKED_BACK = 24
"""Tokens at the end of a text in which a stop string is looked for at every step; the whole text is cut afterwards."""


@dataclass
class Writing(Session):
    """Tokenised prompts, and the model that goes on from them."""

    problems: Problems | None = None
    model: nn.Module | None = None
    tokenizer: Any = None
    inputs: Sequence[list[int]] = ()
    options: SuiteOptions | None = None
    pad: int = 0
    most: int = 0
    reads: bool = False
    """Whether an encoder reads the prompt."""


class WritingTask(SuiteTask):
    """A task that is answered by a text.

    Attributes:
        most: tokens written at most.
        stops: what ends a text; it is cut off.
    """

    heads: tuple[str, ...] = ("language_model", "translation")
    most = 256
    stops: tuple[str, ...] = ()

    @abstractmethod
    def judge(self, row: Row, texts: Sequence[str]) -> dict[str, Any]:
        """``answer`` and the figures of one problem, from the texts that were written (one or several)."""

    def samples(self, options: SuiteOptions) -> int:
        """How many texts are written for each problem."""
        return 1

    def temperature(self, options: SuiteOptions) -> float:
        """0 takes the likeliest token; with several samples, 0.8 where nothing is said."""
        if options.temperature is not None:
            return options.temperature
        return 0.8 if self.samples(options) > 1 else 0.0

    def shaping(self, options: SuiteOptions) -> dict[str, Any]:
        """How texts are written; of sampled ones the batches too, as their draws depend on them."""
        hot = self.temperature(options)
        drawn = {"seed": options.seed, "batch_size": options.batch_size} if hot else {}
        return {"samples": self.samples(options), "temperature": hot, "most_new_tokens": self.most, **drawn}

    def read(self, row: Row, subject: Subject) -> str:
        """The text that the model reads."""
        return str(row["prompt"])

    def refusal(self, base: Any) -> str | None:
        """Heads that do not write."""
        reason = super().refusal(base)
        return reason and f"{reason}, or an encoder-decoder" if "translation" in self.heads else reason

    def open(self, subject: Subject, problems: Problems, options: SuiteOptions, progress: Progress) -> Session:
        """Tokenise; what is too long for the model's positions loses its beginning."""
        from ...tasks.batching import length_limit
        from ...tasks.special_tokens import pad_id
        from ...tensors.batches import by_length

        tokenizer, config = subject.tokenizer, subject.base.config
        reads, limit = bool(config.get("is_encoder_decoder")), length_limit(subject.tokenizer, config)
        most = self.most if limit is None else min(self.most, limit // 2)
        room = None if limit is None else limit if reads else limit - most
        texts = [self.read(row, subject) for row in problems.rows]
        inputs: list[list[int]] = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
        if not reads:  # an end token after the prompt would end the text
            inputs = [ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids for ids in inputs]
        if empty := [row["id"] for row, ids in zip(problems.rows, inputs, strict=True) if not ids]:
            raise ModelError(f"{self.name}: the tokenizer makes no token of the prompt of problem {empty[0]}")
        cut = sum(room is not None and len(ids) > room for ids in inputs)
        inputs = [ids[-room:] if room is not None else ids for ids in inputs]
        nameless = tokenizer.pad_token_id is None and config.get("pad_token_id") is None
        pad = 0 if nameless else pad_id(tokenizer, config)
        batches = list(by_length([len(ids) + most for ids in inputs], options.batch_size, tokens=32768))
        details = {**self.shaping(options), "prompts_cut": cut, "most_new_tokens": most}
        return Writing(batches, details, problems, subject.model, tokenizer, inputs, options, pad, most, reads)

    def answer(self, session: Session, batch: Sequence[int]) -> list[Sample]:
        """Write and judge."""
        assert isinstance(session, Writing)
        assert session.problems
        written = self._write(session, batch)
        rows = [session.problems.rows[i] for i in batch]
        plain = [{key: row[key] for key in ("id", "prompt", "gold")} for row in rows]
        return [{**p, **self.judge(row, texts)} for p, row, texts in zip(plain, rows, written, strict=True)]

    def _write(self, session: Writing, batch: Sequence[int]) -> list[list[str]]:
        """The texts of each problem of a batch."""
        import torch

        from ...tasks.generation import plain_generation
        from ...tensors.forward import answering, to_device_of

        model: Any = session.model
        options = session.options or SuiteOptions()
        count, hot = self.samples(options), self.temperature(options)
        sampling = {"temperature": hot, "top_p": options.top_p, "num_return_sequences": count} if hot else None
        inputs = _padded([session.inputs[i] for i in batch], session.pad, before=not session.reads)
        length = 0 if session.reads else inputs["input_ids"].shape[1]
        stopping = [_Stops(session.tokenizer, self.stops, length)] if self.stops else []
        with (
            answering(model),
            torch.random.fork_rng(),
            plain_generation(model, session.tokenizer, session.most, 1, sampling=sampling, pad_token_id=session.pad),
        ):
            torch.manual_seed(_seed(options.seed, batch))
            tokens = model.generate(**to_device_of(model, inputs), use_cache=True, stopping_criteria=stopping)
        texts = session.tokenizer.batch_decode(
            tokens[:, length:].tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        whole = [self._cut(text) for text in texts]
        return [whole[i * count : (i + 1) * count] for i in range(len(batch))]

    def _cut(self, text: str) -> str:
        ends = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text


def _padded(rows: Sequence[Sequence[int]], pad_id: int, *, before: bool) -> dict[str, Any]:
    """``input_ids`` and ``attention_mask``, (rows, longest), filled up before the tokens or after them."""
    from ...tasks.batching import attention_mask, pad

    if not before:
        return {"input_ids": pad(rows, pad_id), "attention_mask": attention_mask(rows)}
    turned = [row[::-1] for row in rows]
    return {"input_ids": pad(turned, pad_id).flip(1), "attention_mask": attention_mask(turned).flip(1)}


class _Stops:
    """Ends each text when one of the stop strings stands in it."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], length: int) -> None:
        self._tokenizer, self._stops, self._length = tokenizer, stops, length

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:
        import torch

        ends = tokens[:, max(self._length, tokens.shape[1] - LOOKED_BACK) :].tolist()
        texts = self._tokenizer.batch_decode(ends, clean_up_tokenization_spaces=False)
        done = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(done, device=tokens.device)


def _seed(seed: int, batch: Sequence[int]) -> int:
    """Of one batch: the same in every process."""
    return int(digest_of([seed, list(batch)])[:8], 16)
