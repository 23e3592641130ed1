"""Translation with encoder-decoder models: per-token cross entropy, BLEU and chrF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ModelError
from .batching import IGNORED, attention_mask, check_length, pad, tokenise, usual_length
from .data.languages import resolve_prefix
from .data.options import SENTENCE, DataOptions
from .generation import plain_generation
from .sentence_pairs import Encoded, SentencePairsTask
from .special_tokens import pad_id
from .task import Batch, Feature

TAGGED = ("mbart", "m2m_100")
"""Models whose texts begin or end with the code of their language (NLLB is an M2M-100)."""


class TranslationTask(SentencePairsTask):
    """Sentence pairs for an encoder-decoder model; before each source stands the prefix that it was trained with.

    Raises:
        DataError: a length that the model cannot take, a prefix that cannot be guessed.
        ModelError: no padding token, or a tokenizer of many languages that has not been told which.
    """

    name = "translation"

    def __init__(self, options: DataOptions, tokenizer: Any, config: dict[str, Any]) -> None:
        super().__init__(options)
        if config.get("model_type") in TAGGED and getattr(tokenizer, "tgt_lang", None) is None:
            raise ModelError(
                "the tokenizer writes the code of a language into every text, and tokenizer_config.json names none; "
                "needed there: src_lang and tgt_lang (and forced_bos_token_id in generation_config.json)"
            )
        self.prefix = resolve_prefix(options, config)
        self._tokenizer = tokenizer
        self._pad = pad_id(tokenizer, config)
        self._vocabulary: int | None = config.get("vocab_size")
        self._length = usual_length(options.max_source_length, SENTENCE, tokenizer, config)
        check_length("max_source_length", self._length, tokenizer, config)
        self.target_length = usual_length(options.max_target_length, SENTENCE, tokenizer, config)
        check_length("max_target_length", self.target_length, tokenizer, config)

    def encode_sources(self, texts: Sequence[str]) -> Encoded:
        """Tokens of prefix and source."""
        features, cut = tokenise(self._tokenizer, [self.prefix + text for text in texts], self._length)
        return [feature["input_ids"] for feature in features], cut

    def encode_targets(self, texts: Sequence[str]) -> Encoded:
        """Tokens of targets."""
        features, cut = tokenise(self._tokenizer, texts, self.target_length, target=True)
        return [feature["input_ids"] for feature in features], cut

    def collate(self, features: Sequence[Feature]) -> Batch:
        """``input_ids`` and ``attention_mask`` (batch, source length), ``labels`` (batch, target length)."""
        sources: list[Any] = [feature["input_ids"] for feature in features]
        batch = {"input_ids": pad(sources, self._pad), "attention_mask": attention_mask(sources)}
        if features and "labels" in features[0]:
            targets: list[Any] = [feature["labels"] for feature in features]
            batch["labels"] = pad(targets, IGNORED)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy over the label tokens in nats, no label smoothing; and how many they are."""
        return model(**batch).loss, int((batch["labels"] != IGNORED).sum())

    def generate(self, model: nn.Module, batch: Batch) -> list[str]:
        """Translations by ``generate``, greedy or by beams."""
        with plain_generation(model, self._tokenizer, self.target_length, self.options.num_beams):
            tokens = model.generate(**batch)  # type: ignore[operator]
        return self._decode(tokens.tolist())

    def source_text(self, tokens: Sequence[int]) -> str:
        """The source, without the prefix."""
        return self._decode([tokens])[0].removeprefix(self.prefix.strip()).strip()

    def chance(self) -> float | None:
        """Loss per token of a uniform guess: log of the vocabulary's size."""
        return math.log(self._vocabulary) if self._vocabulary else None

    def _decode(self, tokens: list[Any]) -> list[str]:
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]
