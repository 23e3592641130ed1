from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

from composer.errors import DataError, ModelError
from composer.tasks import DataOptions
from composer.tasks.translation import TranslationTask

from .conftest import Write

EN = ["a man runs", "the dog", "a cat sees the woman in the snow", "a dog runs"]
DE = ["ein mann läuft", "ein hund", "eine katze schläft", "ein hund läuft"]


@pytest.fixture
def folder(write: Write) -> Path:
    return write({"test.en": "\n".join(EN), "test.de": "\n".join(DE)})


def make(folder: Path, tokenizer: Any, model: Any, **options: Any) -> TranslationTask:
    fields = {"data": str(folder), "prefix": "", "max_target_length": 8, **options}
    return TranslationTask(DataOptions.model_validate(fields), tokenizer, model.config.to_dict())


def test_features_are_what_the_tokenizer_says_one_by_one(folder: Path, t5_tokenizer: Any, t5: Any) -> None:
    data = make(folder, t5_tokenizer, t5, prefix="the ").load("test")
    assert list(data.features) == [
        {"input_ids": t5_tokenizer(f"the {en}")["input_ids"], "labels": t5_tokenizer(de)["input_ids"]}
        for en, de in zip(EN, DE, strict=True)
    ]
    assert (data.references, data.truncated, data.source) == (DE, 0, "test.en + test.de")


def test_long_sentences_are_cut_and_counted(folder: Path, t5_tokenizer: Any, t5: Any) -> None:
    data = make(folder, t5_tokenizer, t5, max_source_length=4, max_target_length=3).load("test")
    # 4 tokens hold three words and the end; 3 hold two.
    assert data.truncated == 3
    assert [len(feature["input_ids"]) for feature in data.features] == [4, 3, 4, 4]  # type: ignore[arg-type]
    assert all(feature["labels"][-1] == t5_tokenizer.eos_token_id for feature in data.features)  # type: ignore[index]


def test_collate_pads_and_marks(folder: Path, t5_tokenizer: Any, t5: Any) -> None:
    task = make(folder, t5_tokenizer, t5)
    batch = task.collate(task.load("test").features[:2])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 4)
    assert batch["input_ids"][1].tolist()[3:] == [t5_tokenizer.pad_token_id]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"][1].tolist()[-1] == -100
    real = task.real_tokens(batch)
    assert [int(mask.sum()) for mask in real.values()] == [7, 7]
    assert {mask.dtype for mask in real.values()} == {torch.bool}


def test_loss_is_the_mean_over_label_tokens(folder: Path, t5_tokenizer: Any, t5: Any) -> None:
    task = make(folder, t5_tokenizer, t5)
    data = task.load("test")
    loss, tokens = task.loss(t5, task.collate(data.features))
    # Without padding, one sentence at a time.
    total = 0.0
    for feature in data.features:
        source, target = torch.tensor([feature["input_ids"]]), torch.tensor([feature["labels"]])
        start = torch.cat([torch.tensor([[0]]), target[:, :-1]], dim=1)
        with torch.no_grad():
            logits = t5(input_ids=source, decoder_input_ids=start).logits.log_softmax(-1)
        total -= float(logits.gather(2, target[..., None]).sum())
    assert tokens == sum(len(feature["labels"]) for feature in data.features)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(total / tokens, rel=1e-5)
    assert loss.requires_grad
    assert task.chance() == pytest.approx(math.log(t5.config.vocab_size))


@pytest.mark.parametrize("beams", [1, 2])
def test_score_agrees_with_sacrebleu_on_single_generations(
    folder: Path, t5_tokenizer: Any, t5: Any, beams: int
) -> None:
    task = make(folder, t5_tokenizer, t5, num_beams=beams)
    score = task.score(t5, task.load("test"), batch_size=3)
    answers = []
    for en in EN:
        tokens = t5.generate(
            **t5_tokenizer(en, return_tensors="pt"), max_new_tokens=8, num_beams=beams, do_sample=False
        )
        answers.append(t5_tokenizer.decode(tokens[0], skip_special_tokens=True))
    assert task.predict(t5, EN, batch_size=2) == answers
    assert score.metrics["bleu"] == sacrebleu.corpus_bleu(answers, [DE]).score
    assert score.metrics["chrf"] == sacrebleu.corpus_chrf(answers, [DE]).score
    assert score.details["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")
    assert score.details["chrf_signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0")
    assert score.details["examples"] == 4
    assert score.details["samples"][1] == {"source": EN[1], "reference": DE[1], "hypothesis": answers[1]}
    assert task.main_metric in score.metrics


class Parrot(torch.nn.Module):
    """Generates its input."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.generation_config = model.generation_config

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return input_ids


def test_perfect_translations_score_a_hundred_in_any_order(write: Write, t5_tokenizer: Any, t5: Any) -> None:
    text = "\n".join(EN)
    task = make(write({"test.en": text, "test.de": text}), t5_tokenizer, t5)
    score = task.score(Parrot(t5), task.load("test"), batch_size=2)
    assert score.metrics == pytest.approx({"bleu": 100.0, "chrf": 100.0})


def test_the_checkpoints_generation_settings_are_neither_used_nor_changed(
    folder: Path, t5_tokenizer: Any, t5: Any
) -> None:
    task = make(folder, t5_tokenizer, t5)
    expected = task.predict(t5, EN)
    kept = t5.generation_config
    changed = type(kept)(**{**kept.to_dict(), "max_length": 5, "num_beams": 3, "temperature": 0.5})
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    t5.generation_config = changed
    t5.train()
    t5.encoder.eval()
    try:
        assert task.predict(t5, EN) == expected
        assert t5.generation_config is changed
        assert t5.training
        assert not t5.encoder.training
    finally:
        t5.generation_config = kept
        t5.eval()
        logging.getLogger("transformers").removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def test_no_texts_no_answers(folder: Path, t5_tokenizer: Any, t5: Any) -> None:
    assert make(folder, t5_tokenizer, t5).predict(t5, []) == []


@pytest.mark.parametrize(
    ("files", "options", "pairs"),
    [
        ({"test.tsv": "en\tde\na\tb\n"}, {}, [("a", "b")]),
        ({"test.csv": "target,source\nb,a\n"}, {}, [("a", "b")]),
        ({"test.tsv": "x\ty\na\tb\n"}, {"source_column": "y", "target_column": "x"}, [("b", "a")]),
        ({"test.jsonl": '{"translation": {"en": "a", "de": "b"}}'}, {}, [("a", "b")]),
        ({"test.jsonl": '{"en": "a", "de": "b"}\n{"en": null, "de": "b"}'}, {}, [("a", "b")]),
    ],
)
def test_tables(
    write: Write,
    t5_tokenizer: Any,
    t5: Any,
    files: dict[str, str],
    options: Any,
    pairs: list[tuple[str, str]],
) -> None:
    data = make(write(files), t5_tokenizer, t5, **options).load("test")
    assert list(data.references) == [target for _, target in pairs]
    sources = [t5_tokenizer.decode(f["input_ids"], skip_special_tokens=True) for f in data.features]
    assert sources == [t5_tokenizer.decode(t5_tokenizer(s)["input_ids"], skip_special_tokens=True) for s, _ in pairs]


def test_missing_columns_are_all_named(write: Write, t5_tokenizer: Any, t5: Any) -> None:
    task = make(write({"test.tsv": "a\tfr\nx\ty\n"}), t5_tokenizer, t5)
    with pytest.raises(DataError, match=r"no source column 'en' or 'source' or 'src'; columns: a, fr; name it") as e:
        task.load("test")
    assert len(e.value.problems) == 2
    task = make(write({"test.tsv": "english\tde\nx\ty\n"}), t5_tokenizer, t5, source_column="englisch")
    with pytest.raises(DataError, match=r"no source column 'englisch'; .*; did you mean 'english'\?"):
        task.load("test")


def test_values_that_are_no_text(write: Write, t5_tokenizer: Any, t5: Any) -> None:
    task = make(write({"test.jsonl": '{"en": "a", "de": 3}\n{"de": "b"}'}), t5_tokenizer, t5)
    with pytest.raises(DataError, match=r"test\.jsonl:1: 'de' is int 3, expected is text") as caught:
        task.load("test")
    assert caught.value.problems[1].endswith("test.jsonl:2: 'en' is missing")


def test_models_that_do_not_fit(folder: Path, t5_tokenizer: Any) -> None:
    options = DataOptions(data=str(folder), max_source_length=65)
    config = {"max_position_embeddings": 128, "pad_token_id": 0}
    with pytest.raises(DataError, match=r"max_target_length: got 200, the model reads at most 128 tokens"):
        TranslationTask(options.model_copy(update={"max_target_length": 200}), t5_tokenizer, config)

    class Padless:
        pad_token_id = None

    with pytest.raises(ModelError, match=r"names none; needed there: src_lang and tgt_lang"):
        TranslationTask(options, t5_tokenizer, {"model_type": "m2m_100", "pad_token_id": 0})
    with pytest.raises(ModelError, match="no padding token"):
        TranslationTask(options, Padless(), {})
