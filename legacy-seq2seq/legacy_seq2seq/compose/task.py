"""Translation as ``compose`` measures it: files, loss, BLEU; words and decoding are this package's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from composer.plugin import (
    IGNORED,
    Batch,
    DataError,
    DataOptions,
    Encoded,
    Feature,
    ModelError,
    SentencePairsTask,
    attention_mask,
    pad,
    token_loss,
)
from torch import Tensor, nn

from ..config import Config
from ..decoding import beam, greedy
from ..model import Seq2Seq
from ..vocabulary import Vocabularies


class LegacyTranslationTask(SentencePairsTask):
    """Sentence pairs for a :class:`legacy_seq2seq.model.Seq2Seq`.

    The languages are the model's, whatever the options say: it knows one direction. Features hold ``input_ids`` and
    ``labels``, both from ``bos`` to ``eos``; the decoder reads ``labels`` without the last and predicts them without
    the first.

    Raises:
        DataError: sources longer than the model's positions, or lengths too short for a word.
    """

    name = "legacy_translation"
    lowercase = True

    def __init__(self, options: DataOptions, vocabularies: Vocabularies, config: dict[str, Any]) -> None:
        self.config = Config.from_dict(config)
        languages = {"source_lang": self.config.source_language, "target_lang": self.config.target_language}
        super().__init__(options.model_copy(update=languages))
        self.words = vocabularies
        most = self.config.max_length
        self._source_length = options.max_source_length or most
        self._target_length = min(self.target_length, most)
        for field, length in (("max_source_length", self._source_length), ("max_target_length", self._target_length)):
            if not 3 <= length <= most:
                raise DataError(f"{field}: got {length}; allowed for this model: 3 to {most}")

    @staticmethod
    def vocabulary(model_folder: Path) -> Vocabularies:
        """The words of both languages; ``ModelError`` where the folder does not have them."""
        try:
            return Vocabularies.load(model_folder)
        except (OSError, ValueError, KeyError, TypeError) as bad:
            raise ModelError(f"{model_folder}: no vocabulary: {bad}") from bad

    def encode_sources(self, texts: Sequence[str]) -> Encoded:
        """Words of sources, from ``bos`` to ``eos``."""
        return _encoded([self.words.encode_source(text) for text in texts], self._source_length)

    def encode_targets(self, texts: Sequence[str]) -> Encoded:
        """Words of targets, likewise."""
        return _encoded([self.words.encode_target(text) for text in texts], self._target_length)

    def collate(self, features: Sequence[Feature]) -> Batch:
        """``input_ids``, ``attention_mask`` (batch, source), ``decoder_input_ids`` and ``labels`` (batch, target)."""
        sources: list[Any] = [feature["input_ids"] for feature in features]
        batch = {"input_ids": pad(sources, self.config.pad_id), "attention_mask": attention_mask(sources)}
        if features and "labels" in features[0]:
            targets: list[Any] = [feature["labels"] for feature in features]
            batch["decoder_input_ids"] = pad([target[:-1] for target in targets], self.config.pad_id)
            batch["labels"] = pad([target[1:] for target in targets], IGNORED)
        return batch

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        """Mean cross entropy over the label tokens in nats, without label smoothing; and how many they are."""
        return token_loss(model(batch["input_ids"], batch["decoder_input_ids"]), batch["labels"])

    def generate(self, model: nn.Module, batch: Batch) -> list[str]:
        """Translations by the package's own search, greedy or by beams."""
        assert isinstance(model, Seq2Seq)
        beams, longest = self.options.num_beams, self._target_length
        sources = batch["input_ids"]
        found = greedy(model, sources, longest) if beams == 1 else beam(model, sources, beams, longest=longest)
        return [self.words.decode_target(words) for words in found]

    def source_text(self, tokens: Sequence[int]) -> str:
        """The words that the model knows of the source."""
        return " ".join(self.words.source[i] for i in tokens[1:-1])

    def chance(self) -> float | None:
        """Loss per token of a uniform guess: log of the target vocabulary's size."""
        return math.log(self.config.target_vocabulary)


def _encoded(whole: list[list[int]], length: int) -> Encoded:
    """Cut to ``length`` tokens, of which the last stays."""
    cut = [len(row) > length for row in whole]
    return [[*row[: length - 1], row[-1]] if long else row for row, long in zip(whole, cut, strict=True)], cut
