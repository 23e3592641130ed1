"""Masked language modelling: loss and perplexity of tokens that were hidden (Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, ModelError
from ..tensors.forward import answering, to_device_of
from .batching import IGNORED, token_loss
from .data.options import DataOptions
from .task import Batch, Examples, Feature, Split
from .texts import TextTask

CHOSEN = 0.15
MASKED, REPLACED = 0.8, 0.1
"""Shares of the chosen tokens; the rest stays as it is."""


class MaskedLanguageModelTask(TextTask):
    """Windows of running text for an encoder, each between the tokenizer's special tokens (``[CLS] ... [SEP]``).

    Of each window ``round(0.15 n)`` of its ``n`` ordinary tokens (at least one) are to be predicted: 80 % of them
    are replaced by the mask token, 10 % by a random ordinary token, 10 % stay. The draw depends on the seed and the
    number of the window in its split and nothing else, so every model is asked for the same tokens every time (and
    training too sees one draw in all epochs).
    Features hold ``input_ids`` and ``labels`` (-100 where nothing is asked).

    Raises:
        DataError: a window that the model cannot take, or without room for a token.
        ModelError: the tokenizer has no mask token.
    """

    name = "masked_language_model"
    stream = "encoder"

    def __init__(self, options: DataOptions, tokenizer: Any, config: dict[str, Any]) -> None:
        super().__init__(options, tokenizer, config)
        if tokenizer.mask_token_id is None:
            raise ModelError("the tokenizer has no mask token; masked language modelling needs one")
        self._mask = int(tokenizer.mask_token_id)
        self._special = np.array(sorted(tokenizer.all_special_ids))
        self._ordinary = np.setdiff1d(np.arange(len(tokenizer)), self._special)
        self._around = tokenizer.num_special_tokens_to_add(pair=False)
        if self.window <= self._around:
            least = self._around + 1
            raise DataError(f"max_source_length: got {self.window}, a window needs at least {least} tokens")

    def load(self, split: Split) -> Examples:
        """Read, tokenise, cut and mask a split; ``DataError`` says what is wrong with the files."""
        windows, examples = self._windows(split, self.window - self._around, special_tokens=False)
        before, after = self._frame()
        features = [self._hide(number, [*before, *tokens, *after]) for number, tokens in windows]
        if not any(label != IGNORED for feature in features for label in feature["labels"]):  # type: ignore[union-attr]
            raise DataError(f"{examples.source}: nothing but special and unknown tokens in it")
        return replace(examples, features=features)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy in nats over the tokens that are to be predicted; and how many they are."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        asked = batch["labels"] != IGNORED  # a seventh of the tokens: the others need no probabilities
        return token_loss(logits[asked], batch["labels"][asked])

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """The likeliest token for each mask of a text, with its probability: ``paris (0.93)``."""
        return [self._fill(model, text) for text in texts]

    def _frame(self) -> tuple[list[int], list[int]]:
        """The special tokens before and after a text."""
        encoded = self._tokenizer("a", return_special_tokens_mask=True)
        ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
        first = special.index(0)
        return ids[:first], ids[len(ids) - special[::-1].index(0) :]

    def _hide(self, number: int, tokens: list[int]) -> Feature:
        ids = np.array(tokens)
        draw = np.random.default_rng([self.options.seed, number])
        places = np.flatnonzero(~np.isin(ids, self._special))
        count = min(len(places), max(1, round(CHOSEN * len(places))))
        asked = draw.permutation(places)[:count]
        labels = np.full(len(ids), IGNORED)
        labels[asked] = ids[asked]
        # Evenly spaced with a random start: each share is right to within one token, and on average exactly.
        share = (np.arange(count) + draw.random()) / max(1, count)
        ids[asked[share < MASKED]] = self._mask
        replaced = asked[(share >= MASKED) & (share < MASKED + REPLACED)]
        ids[replaced] = draw.choice(self._ordinary, len(replaced))
        return {"input_ids": ids.tolist(), "labels": labels.tolist()}

    def _fill(self, model: nn.Module, text: str) -> str:
        tokens = self._tokenizer(text, truncation=True, max_length=self.window, return_tensors="pt")["input_ids"]
        if not (tokens == self._mask).any():
            raise DataError(f"text {text!r}: no {self._tokenizer.mask_token} in it, which stands for what is asked")
        batch = to_device_of(model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
        with answering(model):
            logits = model(**batch).logits[batch["input_ids"] == self._mask].float()
        best = logits.softmax(-1).max(-1)
        words = [self._tokenizer.decode([token]).strip() for token in best.indices.tolist()]
        return ", ".join(f"{word} ({p:.2f})" for word, p in zip(words, best.values.tolist(), strict=True))
