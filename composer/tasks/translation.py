"""Translation with encoder-decoder models: per-token cross entropy, BLEU and chrF."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..batches import by_length
from ..errors import DataError
from ..running import answering, to_device_of
from .batching import (
    IGNORED,
    attention_mask,
    check_length,
    pad,
    pad_id,
    tokenise,
)
from .files import Row, find_column, read_split, text_problem
from .formats import Table, few
from .generation import plain_generation
from .languages import resolve_prefix
from .options import SENTENCE, DataOptions
from .task import Batch, Examples, Feature, Score, Split

SHOWN_SAMPLES = 3


class TranslationTask:
    """Sentence pairs for an encoder-decoder model.

    Features hold ``input_ids`` (prefix + source) and ``labels`` (target), both unpadded.

    Raises:
        DataError: a length that the model cannot take, a prefix that cannot be guessed.
        ModelError: no padding token.
    """

    name = "translation"
    main_metric = "bleu"

    def __init__(self, options: DataOptions, tokenizer: Any, config: dict[str, Any]) -> None:
        self.options = options
        self.scoring = {"beams": options.num_beams}
        self.prefix = resolve_prefix(options, config)
        self._tokenizer = tokenizer
        self._pad = pad_id(tokenizer, config)
        self._vocabulary: int | None = config.get("vocab_size")
        self._length = options.max_source_length or SENTENCE
        check_length("max_source_length", self._length, tokenizer, config)
        check_length("max_target_length", options.max_target_length, tokenizer, config)

    def load(self, split: Split) -> Examples:
        """Read, cut to size and tokenise a split; ``DataError`` says what is wrong with the files."""
        read = read_split(self.options, split, self._pick, parallel=True)
        targets = [target for _, target in read.rows]
        features, cut = self._encode([source for source, _ in read.rows])
        labels, cut_labels = tokenise(self._tokenizer, targets, self.options.max_target_length, target=True)
        for feature, label in zip(features, labels, strict=True):
            feature["labels"] = label["input_ids"]
        truncated = sum(a or b for a, b in zip(cut, cut_labels, strict=True))
        return Examples(split, features, targets, read.digest, truncated, read.source)

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

    def real_tokens(self, batch: Batch) -> dict[str, Tensor]:
        """Bool masks: encoder (batch, source length), decoder (batch, target length)."""
        return {"encoder": batch["attention_mask"].bool(), "decoder": batch["labels"] != IGNORED}

    def score(self, model: nn.Module, data: Examples, *, batch_size: int = 64) -> Score:
        """Corpus BLEU and chrF (0 to 100) of generated translations, as sacrebleu defines them."""
        from sacrebleu.metrics import BLEU, CHRF

        start = time.perf_counter()
        answers = self._generate(model, data.features, batch_size)
        seconds = time.perf_counter() - start
        references = [list(data.references)]
        bleu, chrf = BLEU(trg_lang=self._metric_language()), CHRF()
        metrics = {
            "bleu": float(bleu.corpus_score(answers, references).score),
            "chrf": float(chrf.corpus_score(answers, references).score),
        }
        details = {
            "examples": len(data),
            "seconds": seconds,
            "seconds_per_example": seconds / max(1, len(data)),
            "num_beams": self.options.num_beams,
            "max_new_tokens": self.options.max_target_length,
            "bleu_signature": str(bleu.get_signature()),
            "chrf_signature": str(chrf.get_signature()),
            "samples": self._samples(data, answers),
        }
        return Score(metrics, details)

    def predict(self, model: nn.Module, texts: Sequence[str], *, batch_size: int = 64) -> list[str]:
        """Translations of the texts, in their order."""
        return self._generate(model, self._encode(texts)[0], batch_size)

    def chance(self) -> float | None:
        """Loss per token of a uniform guess: log of the vocabulary's size."""
        return math.log(self._vocabulary) if self._vocabulary else None

    def _encode(self, sources: Sequence[str]) -> tuple[list[Any], list[bool]]:
        texts = [self.prefix + source for source in sources]
        return tokenise(self._tokenizer, texts, self._length)

    def _generate(self, model: nn.Module, features: Sequence[Feature], batch_size: int) -> list[str]:
        sources: list[Any] = [feature["input_ids"] for feature in features]
        answers = [""] * len(sources)
        settings = plain_generation(model, self.options.max_target_length, self.options.num_beams)
        with answering(model), settings:
            for chosen in by_length([len(source) for source in sources], batch_size):
                batch = to_device_of(model, self.collate([{"input_ids": sources[i]} for i in chosen]))
                tokens = model.generate(**batch)  # type: ignore[operator]
                for i, text in zip(chosen, self._decode(tokens.tolist()), strict=True):
                    answers[i] = text
        return answers

    def _decode(self, tokens: list[Any]) -> list[str]:
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]

    def _samples(self, data: Examples, answers: Sequence[str]) -> list[dict[str, str]]:
        shown: list[Any] = [feature["input_ids"] for feature in data.features[:SHOWN_SAMPLES]]
        sources = [text.removeprefix(self.prefix.strip()).strip() for text in self._decode(shown)]
        rows = zip(sources, data.references, answers, strict=False)
        return [{"source": s, "reference": r, "hypothesis": h} for s, r, h in rows]

    def _metric_language(self) -> str:
        # Only Chinese has a tokenizer of its own inside sacrebleu; Japanese and Korean need extra packages.
        return "zh" if self.options.target_lang.lower().startswith("zh") else ""

    def _pick(self, table: Table) -> list[Row]:
        table = _unfold(table, self.options)
        languages = self.options.source_lang, self.options.target_lang
        found = [
            find_column(table, self.options.source_column, (languages[0], "source", "src"), "source"),
            find_column(table, self.options.target_column, (languages[1], "target", "tgt"), "target"),
        ]
        missing = [problem for error in found if isinstance(error, DataError) for problem in error.problems]
        if missing:
            raise DataError(missing)
        names = [str(name) for name in found]
        checks = (text_problem(table, name, row) for row in range(len(table)) for name in names)
        problems = [problem for problem in checks if problem]
        if problems:
            raise DataError(few(problems))
        return [(a or "", b or "") for a, b in zip(*(table.columns[name] for name in names), strict=True)]


def _unfold(table: Table, options: DataOptions) -> Table:
    """Make columns of the ``{"en": ..., "de": ...}`` that a column ``translation`` often holds."""
    folded = table.columns.get("translation")
    if options.source_column or options.target_column or not folded:
        return table
    if not all(isinstance(row, dict) for row in folded):
        return table
    languages = dict.fromkeys(language for row in folded for language in row)
    columns = {language: [row.get(language) for row in folded] for language in languages}
    return Table(table.place, table.source, columns, table.lines)
