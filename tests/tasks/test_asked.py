"""Whatever the task, the base model's answers count where the loss looks: against each example run by itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from composer.tasks import DataOptions
from composer.tasks.classification import ClassificationTask
from composer.tasks.language_model import LanguageModelTask
from composer.tasks.masked_language_model import MaskedLanguageModelTask
from composer.tasks.translation import TranslationTask
from composer.training.distillation import Answers

TOKENS = [[5, 9, 7, 12, 4, 8], [6, 11], [10, 4, 13, 3]]
Feature = dict[str, Any]
Case = tuple[Any, nn.Module, list[Feature]]


def language_model(request: pytest.FixtureRequest) -> Case:
    model, tokenizer = request.getfixturevalue("gpt2"), request.getfixturevalue("gpt2_tokenizer")
    options = DataOptions(data="none", max_source_length=8)
    return LanguageModelTask(options, tokenizer, model.config.to_dict()), model, [{"input_ids": t} for t in TOKENS]


def masked(request: pytest.FixtureRequest) -> Case:
    model, tokenizer = request.getfixturevalue("masked_bert"), request.getfixturevalue("bert_tokenizer")
    task = MaskedLanguageModelTask(DataOptions(data="none", max_source_length=8), tokenizer, model.config.to_dict())
    labels = [[t if i % 2 else -100 for i, t in enumerate(tokens)] for tokens in TOKENS]
    return task, model, [{"input_ids": t, "labels": chosen} for t, chosen in zip(TOKENS, labels, strict=True)]


def translation(request: pytest.FixtureRequest) -> Case:
    model, tokenizer = request.getfixturevalue("t5"), request.getfixturevalue("t5_tokenizer")
    options = DataOptions(data="none", max_source_length=8, max_target_length=8)
    task = TranslationTask(options, tokenizer, model.config.to_dict())
    return task, model, [{"input_ids": t, "labels": t[::-1][: 1 + i]} for i, t in enumerate(TOKENS)]


def classification(request: pytest.FixtureRequest) -> Case:
    model, tokenizer = request.getfixturevalue("distilbert"), request.getfixturevalue("bert_tokenizer")
    task = ClassificationTask(DataOptions(data="none", max_source_length=8), tokenizer, model.config.to_dict())
    return task, model, [{"input_ids": t, "labels": i % 2} for i, t in enumerate(TOKENS)]


def asked(model: nn.Module, feature: Feature, causal: bool) -> Iterator[Tensor]:
    """The logits of one example, by itself and unpadded, that its loss looks at."""
    inputs = {name: torch.tensor([value]) for name, value in feature.items() if isinstance(value, list)}
    labels = inputs.get("labels")
    if not hasattr(model, "decoder"):
        inputs.pop("labels", None)
    logits = model(**inputs).logits[0]
    if logits.dim() == 1:
        yield logits
    elif causal:
        yield from logits[:-1]  # what follows the last token nobody knows
    else:
        assert labels is not None
        yield from logits[labels[0] != -100]


@pytest.mark.parametrize("make", [language_model, masked, translation, classification])
def test_the_divergence_is_the_mean_over_what_is_asked(make: Any, request: pytest.FixtureRequest) -> None:
    task, base, features = make(request)
    model, draw = copy.deepcopy(base), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
        causal = make is language_model
        rows = [[row for feature in features for row in asked(one, feature, causal)] for one in (base, model)]
        p, q = (torch.distributions.Categorical(logits=torch.stack(some).double()) for some in rows)
        wanted = torch.distributions.kl_divergence(p, q).mean().item()
        batch = task.collate(features)
        loss = Answers(base, task, 1.0).loss(model, batch).item()
    assert wanted > 1e-3
    assert loss == pytest.approx(wanted, rel=1e-4)
    where = task.asked(batch)
    assert len(rows[0]) == (len(features) if where is None else int(where.sum()))
    assert task.loss(model, batch)[1] == len(rows[0])
