"""Running text: joined, tokenised in one piece and cut into windows; perplexity."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import DataError
from ..tensors.batches import by_length
from ..tensors.forward import answering, to_device_of
from .batching import IGNORED, attention_mask, check_length, length_limit, pad, token_loss, usual_length
from .data.as_text import layout_of, problem_texts
from .data.formats import Table, few
from .data.options import DataOptions
from .data.splits import Row, chosen, find_column, read_running_text, text_problem
from .special_tokens import pad_id
from .task import Batch, Examples, Feature, Score, Split, input_lengths

COLUMNS = ("text", "content", "document", "sentence", "review")
"""Columns that hold the texts where none is named; the first that is there counts."""
SEPARATOR = "\n\n"
"""What stands between two texts."""
LONGEST = 1024
"""Tokens of a window where neither options nor model ask for fewer."""
Window = tuple[int, list[int]]
"""Number of a window within its split, and its tokens."""

MOST_NATS = 700.0
"""A larger loss has no perplexity in a float; it is given that of this one."""


class TextTask(ABC):
    """Base of the tasks on running text.

    The texts of a split (rows of a table, lines of a text file; problems with their answers as
    :mod:`.data.as_text` reads them) are joined by an empty line and tokenised in one
    piece, as the published perplexities on WikiText were measured (``"\\n\\n".join(rows)``: GPTQ, SparseGPT, Wanda).
    The tokens are cut into windows of equal length that do not overlap. A shorter last window is dropped, unless it
    is the only one. Sizes count windows.

    Raises:
        DataError: a window longer than the model's position table.
    """

    name: str
    stream: str
    main_metric = "perplexity"

    def __init__(self, options: DataOptions, tokenizer: Any, config: dict[str, Any]) -> None:
        self.options = options
        self.scoring: dict[str, Any] = {}
        self._tokenizer = tokenizer
        self._limit = length_limit(tokenizer, config)
        self.window = usual_length(options.max_source_length, LONGEST, tokenizer, config)
        check_length("max_source_length", self.window, tokenizer, config)
        self._pad = self._padding(tokenizer, config)
        self._vocabulary: int | None = config.get("vocab_size")

    @staticmethod
    def _padding(tokenizer: Any, config: dict[str, Any]) -> int:
        """As :func:`.special_tokens.pad_id`, or 0 where neither tokenizer nor configuration has one, as GPT-2's.

        Windows are equally long, so nothing is padded but the only window of a short text, and there the attention
        mask and the labels leave out what the padding holds.
        """
        nameless = tokenizer.pad_token_id is None and config.get("pad_token_id") is None
        return 0 if nameless else pad_id(tokenizer, config)

    @abstractmethod
    def load(self, split: Split) -> Examples:
        """Read, tokenise and cut a split; ``DataError`` says what is wrong with the files."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy in nats over the tokens that are asked for; and how many they are."""

    @abstractmethod
    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """The model's answer to each text."""

    def collate(self, features: Sequence[Feature]) -> Batch:
        """``input_ids``, ``attention_mask`` and ``labels`` (the tokens themselves, where a feature has no others),
        each (batch, window)."""
        rows: list[Any] = [feature["input_ids"] for feature in features]
        labels: list[Any] = [feature.get("labels", feature["input_ids"]) for feature in features]
        masks = {"attention_mask": attention_mask(rows), "labels": pad(labels, IGNORED)}
        return {"input_ids": pad(rows, self._pad), **masks}

    def real_tokens(self, batch: Batch) -> dict[str, Tensor]:
        """Bool mask of the task's stream: (batch, window)."""
        return {self.stream: batch["attention_mask"].bool()}

    def predicted(self, batch: Batch) -> Tensor:
        """The token that is asked for at each place, :data:`IGNORED` where none is: (batch, window)."""
        return batch["labels"]

    def asked(self, batch: Batch) -> Tensor:
        """Places with a label: (batch, window), bool."""
        return batch["labels"] != IGNORED

    def score(self, model: nn.Module, data: Examples, *, batch_size: int = 64) -> Score:
        """Perplexity: exp of the mean loss over all tokens that are asked for."""
        start = time.perf_counter()
        samples = self._losses(model, data, batch_size)
        count = sum(sample["tokens"] for sample in samples)
        loss = sum(sample["nats"] for sample in samples) / max(1, count)
        seconds = time.perf_counter() - start
        details = {
            "examples": len(data),
            "tokens": count,
            "window": self.window,
            "joined_by": SEPARATOR,
            "seconds": seconds,
            "seconds_per_example": seconds / max(1, len(data)),
        }
        return Score({"perplexity": math.exp(min(loss, MOST_NATS))}, details, loss, samples)

    def _losses(self, model: nn.Module, data: Examples, batch_size: int) -> list[dict[str, Any]]:
        """Loss in nats and number of tokens of each window."""
        samples: list[dict[str, Any]] = [{}] * len(data)
        with answering(model):
            for indices in by_length(input_lengths(data.features), batch_size):
                batch = to_device_of(model, self.collate([data.features[i] for i in indices]))
                logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                for i, own, labels in zip(indices, logits, self.predicted(batch), strict=True):
                    loss, count = token_loss(own[labels != IGNORED], labels[labels != IGNORED])
                    samples[i] = {"nats": loss.item() * count, "tokens": count}
        return samples

    def chance(self) -> float | None:
        """Loss per token of a uniform guess: log of the vocabulary's size."""
        return math.log(self._vocabulary) if self._vocabulary else None

    def _windows(self, split: Split, room: int, *, special_tokens: bool) -> tuple[list[Window], Examples]:
        """Numbered windows of ``room`` tokens, and what is to be said of them (the examples still without features).

        ``special_tokens`` are those that the tokenizer puts around a whole text (Llama's ``<s>``), once.
        """
        read = read_running_text(self.options, split, self._pick)
        text = SEPARATOR.join(cell for (cell,) in read.rows)
        ids: list[int] = self._tokenizer(text, add_special_tokens=special_tokens, verbose=False)["input_ids"]
        windows = cut(ids, room)
        kept, note = chosen(self.options, split, len(windows), "windows")
        source = f"{read.source}; {len(windows):,} windows of {self.window:,} tokens{note}"
        return [(i, windows[i]) for i in kept], Examples(split, [], [""] * len(kept), read.digest, source=source)

    def _pick(self, table: Table) -> list[Row]:
        return [(text,) for text in table_texts(table, self.options)]


def table_texts(table: Table, options: DataOptions) -> list[str]:
    """The texts of a table: of the column that is named or usual, else of problems with their answers.

    Raises:
        DataError: there is neither, or a cell is no text.
    """
    usual = (*COLUMNS, options.source_lang)
    layout = layout_of(table) if options.text_column is None else None
    if layout and not set(usual) & set(table.columns) - set(layout[0]):
        return problem_texts(table) or []
    column = find_column(table, options.text_column, usual, "text")
    if isinstance(column, DataError):
        raise column
    if problems := [problem for row in range(len(table)) if (problem := text_problem(table, column, row))]:
        raise DataError(few(problems))
    return [cell or "" for cell in table.columns[column]]


def cut(ids: Sequence[int], length: int) -> list[list[int]]:
    """Windows of ``length`` that do not overlap; a shorter last one only where it is the only one.

    >>> cut([1, 2, 3, 4, 5], 2), cut([1, 2, 3], 4)
    ([[1, 2], [3, 4]], [[1, 2, 3]])
    """
    count = max(1, len(ids) // length)
    return [list(ids[i * length : (i + 1) * length]) for i in range(count)]
