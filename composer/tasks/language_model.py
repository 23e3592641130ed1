"""Language modelling with causal models: loss and perplexity on windows of running text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError
from ..tensors.forward import answering, to_device_of
from .batching import IGNORED, token_loss
from .data.options import SENTENCE, DataOptions
from .generation import plain_generation
from .task import Batch, Examples, Split
from .texts import TextTask


class LanguageModelTask(TextTask):
    """Windows of running text for a decoder-only model; each token is predicted from those before it in its window.

    So a window of n tokens has n - 1 predictions. Features hold ``input_ids``.

    Raises:
        DataError: a window that the model cannot take, or of one token.
    """

    name = "language_model"
    stream = "decoder"

    def __init__(self, options: DataOptions, tokenizer: Any, config: dict[str, Any]) -> None:
        super().__init__(options, tokenizer, config)
        if self.window < 2:
            raise DataError("max_source_length: got 1, a window needs at least 2 tokens")

    def load(self, split: Split) -> Examples:
        """Read, tokenise and cut a split; ``DataError`` says what is wrong with the files."""
        windows, examples = self._windows(split, self.window, special_tokens=True)
        if len(windows[0][1]) < 2:
            raise DataError(f"{examples.source}: the text has {len(windows[0][1])} tokens, at least 2 are needed")
        return replace(examples, features=[{"input_ids": window} for _, window in windows])

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy in nats over all tokens but the first of each window; and how many they are."""
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return token_loss(logits, self.predicted(batch))

    def predicted(self, batch: Batch) -> Tensor:
        """The token after each place, :data:`IGNORED` where there is none: (batch, window)."""
        following = torch.full_like(batch["labels"], IGNORED)
        following[:, :-1] = batch["labels"][:, 1:]
        return following

    def asked(self, batch: Batch) -> Tensor:
        """Places with a token after them, which is what is predicted there: (batch, window), bool."""
        return self.predicted(batch) != IGNORED

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """How the model goes on after each text, ``max_target_length`` tokens at most, on one line."""
        return [self._continue(model, text) for text in texts]

    def _continue(self, model: nn.Module, text: str) -> str:
        tokens: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        if not tokens:
            raise DataError(f"text {text!r}: no token to go on from")
        longest = self.options.max_target_length or SENTENCE
        if self._limit is not None:
            longest = min(longest, self._limit // 2)
            tokens = tokens[longest - self._limit :]
        batch = to_device_of(model, {"input_ids": torch.tensor([tokens])})
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        with (
            answering(model),
            plain_generation(model, self._tokenizer, longest, self.options.num_beams, pad_token_id=self._pad),
        ):
            answer = model.generate(**batch)[0, len(tokens) :]  # type: ignore[operator]
        return " ".join(self._tokenizer.decode(answer.tolist(), skip_special_tokens=True).split())
