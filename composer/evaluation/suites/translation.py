"""Translation of test sets: BLEU and chrF as sacrebleu defines them, METEOR by nltk where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, RecipeError
from ...tasks.data.formats import Table, few
from ...tasks.data.languages import NAMES, resolve_prefix
from ...tasks.data.options import DataOptions
from ...tasks.data.sources import FolderSource
from ..uncertainty import Measure, mean_of
from .meteor import meteor, signature, synonyms
from .places import MissingDataError, Place
from .suite import Problems, Row, Sample, Session, Subject, Suite, SuiteOptions
from .writing import WritingTask


def _statistics(metric: Callable[[], Any], samples: Sequence[Sample]) -> np.ndarray:
    """What sacrebleu adds up over sentences: matches, totals, lengths."""
    found = metric()._extract_corpus_statistics([s["answer"] for s in samples], [[s["gold"] for s in samples]])
    return np.array(found, dtype=float)


def _of_sums(metric: Callable[[], Any], sums: np.ndarray) -> Any:
    """The score of sums, of each row of them where there are several."""
    made = metric()
    scores = [float(made._compute_score_from_stats([round(x) for x in row]).score) for row in np.atleast_2d(sums)]
    return np.array(scores) if sums.ndim > 1 else scores[0]


def bleu_of(language: str) -> Measure:
    """BLEU into a language: its tokenizer is that of sacrebleu's default, of Chinese its own."""

    def metric() -> Any:
        from sacrebleu.metrics import BLEU

        return BLEU(trg_lang="zh" if language.lower().startswith("zh") else "")

    return Measure("bleu", partial(_statistics, metric), partial(_of_sums, metric))


def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


CHRF = Measure("chrf", partial(_statistics, _chrf), partial(_of_sums, _chrf))
METEOR = mean_of("meteor", "meteor")


class TranslationSuiteTask(WritingTask):
    """Sentences and their translations.

    An encoder-decoder reads the source after the prefix that it was trained with; a decoder-only model reads
    ``English: … German:`` and writes a line. With several samples the best by METEOR counts (the study's way), which
    is a figure of what a model can do, not of what it does.
    """

    suite = "translation"
    most = 128
    heads = ("translation", "language_model")
    measures = (bleu_of(""), CHRF)

    def __init__(self, name: str, heading: str, place: Place) -> None:
        self.name, self.heading, self.place = name, heading, place
        self._languages = ("en", "de")
        self._wordnet: Path | None = None

    def load(self, options: SuiteOptions) -> Problems:
        """Pairs of sentences, from parallel files or a table."""
        source, target = options.source_lang, options.target_lang
        if options.samples > 1 and not _has_nltk():
            raise RecipeError(
                "--samples: the best of several translations is chosen by METEOR, which needs nltk; "
                "pip install 'composer-pruning[eval]'"
            )
        if options.wordnet is not None:
            if not _has_nltk():
                raise RecipeError("--wordnet: METEOR needs nltk; pip install 'composer-pruning[eval]'")
            synonyms(options.wordnet)
        self._languages, self._wordnet = (source, target), options.wordnet
        table = self._table(options)
        columns = _columns(table, source, target)
        empty = [table.at(i) for i, pair in enumerate(zip(*columns, strict=True)) if not all(map(_is_text, pair))]
        if empty:
            raise DataError(few([f"{where}: a sentence is missing" for where in empty]))
        read = [{"id": i, "prompt": a, "gold": b} for i, (a, b) in enumerate(zip(*columns, strict=True))]
        return Problems(read, table.source).first(options.limit)

    def _table(self, options: SuiteOptions) -> Table:
        pair = (options.source_lang, options.target_lang)
        for folder in (options.data / name for name in self.place.folders) if options.data else ():
            source = FolderSource(folder, pair) if folder.is_dir() else None
            there = source.names() if source else []
            if source and (split := next((name for name in self.place.splits if name in there), None)):
                return source.read(split)
        if options.data:
            wanted = ", ".join(
                f"{f}/{{{','.join(self.place.splits)}}}.{{{','.join(pair)}}}" for f in self.place.folders
            )
            raise MissingDataError(f"{options.data}: no problems of {self.name}; looked for {wanted}")
        return self.place.table(None)

    def samples(self, options: SuiteOptions) -> int:
        return options.samples

    def shaping(self, options: SuiteOptions) -> dict[str, Any]:
        """Those of writing, the languages and how METEOR is computed."""
        languages = {"source_lang": options.source_lang, "target_lang": options.target_lang}
        known = {"meteor": signature(options.wordnet)} if _has_nltk() else {}
        return {**super().shaping(options), **languages, **known}

    def measures_for(self, options: SuiteOptions) -> tuple[Measure, ...]:
        return (bleu_of(options.target_lang), CHRF, *([METEOR] if _has_nltk() else []))

    def open(self, subject: Subject, problems: Problems, options: SuiteOptions, progress: Any) -> Session:
        """With sacrebleu's signatures in the details."""
        self.stops = () if subject.base.config.get("is_encoder_decoder") else ("\n",)
        session = super().open(subject, problems, options, progress)
        marked = [("BLEU", bleu_of(options.target_lang)), ("chrF", CHRF)]
        signatures = {}
        for name, measure in marked:
            metric = measure.value.args[0]()  # type: ignore[attr-defined]
            metric.corpus_score(["a"], [["a"]])
            signatures[f"{name} signature"] = str(metric.get_signature())
        session.details |= {**signatures, "read_as": self.read({"prompt": "…"}, subject)}
        return session

    def read(self, row: Row, subject: Subject) -> str:
        """The prefix of an encoder-decoder, or the two lines of a decoder."""
        source, target = self._languages
        config = subject.base.config
        if config.get("is_encoder_decoder"):
            return resolve_prefix(DataOptions(data="x", source_lang=source, target_lang=target), config) + row["prompt"]
        return f"{NAMES.get(source, source)}: {row['prompt']}\n{NAMES.get(target, target)}:"

    def judge(self, row: Row, texts: Sequence[str]) -> dict[str, Any]:
        texts = [" ".join(text.split()) for text in texts]
        if not _has_nltk():
            return {"answer": texts[0]}
        scores = [meteor(text, row["gold"], self._wordnet) for text in texts]
        best = max(range(len(texts)), key=lambda i: (scores[i], -i))
        several = {"answers": texts, "meteors": scores} if len(texts) > 1 else {}
        return {"answer": texts[best], "meteor": scores[best], **several}

    def chance(self, problems: Problems, base: Any) -> dict[str, float]:
        """None."""
        return {"bleu": 0.0}


def _has_nltk() -> bool:
    return find_spec("nltk") is not None


def _is_text(cell: Any) -> bool:
    return isinstance(cell, str) and bool(cell.strip())


def _columns(table: Table, source: str, target: str) -> list[list[Any]]:
    folded = table.columns.get("translation")
    if folded and all(isinstance(cell, dict) for cell in folded):
        return [[cell.get(language) for cell in folded] for language in (source, target)]
    if missing := [language for language in (source, target) if language not in table.columns]:
        there = ", ".join(table.columns)
        raise DataError(f"{table.place}: no column {missing[0]!r}; columns: {there}; see --source-lang, --target-lang")
    return [table.columns[source], table.columns[target]]


TASKS = (
    TranslationSuiteTask(
        "wmt14", "WMT14", Place("wmt14", ("wmt14",), ("newstest2014.en-de", "newstest2014", "test"), "wmt/wmt14:de-en")
    ),
    TranslationSuiteTask(
        "multi30k", "Multi30K", Place("multi30k", ("multi30k",), ("test_2016_flickr", "test"), "bentrevett/multi30k")
    ),
    TranslationSuiteTask(
        "opus-books",
        "OPUS books",
        Place("opus-books", ("opus_books", "opus-books"), ("test", "train"), "Helsinki-NLP/opus_books:de-en"),
    ),
    TranslationSuiteTask(
        "parallel", "Own sentences", Place("parallel", ("parallel",), ("test", "validation", "valid"))
    ),
)

SUITE = Suite("translation", "Translation", TASKS)
