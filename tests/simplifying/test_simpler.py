"""Norms in closed form, and what of them is folded, in every kind of family; held to numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from composer.models.folder import BaseModel
from composer.shrinking.shrink import shrink_into
from composer.simplifying.folding import fold_norms
from composer.simplifying.simpler import simpler
from composer.tasks import DataOptions, open_task
from composer.tasks.task import Batch, Examples, Task
from tests.conftest import Folder
from tests.reference.zeroed import masked_folder

FAMILIES = {
    "bert": (5, []),
    "gpt2": (5, ["transformer.h.0.ln_1", "transformer.h.0.ln_2", "transformer.h.1.ln_1", "transformer.h.1.ln_2"]),
    "llama": (5, ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]),
    "t5": (12, ["encoder.block.0.layer.0.layer_norm", "decoder.block.1.layer.1.layer_norm"]),
    "bart": (12, []),
}
"""Name -> how many norms there are, and some that can be folded: all of a post-norm family stay."""


class Subject:
    """A tiny model with a batch of its task."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.base = BaseModel(folder)
        self.task: Task = open_task(DataOptions(data=str(data)), self.base.folder, self.base.config, self.base.task)
        self.data: Examples = self.task.load("train")
        self.batch: Batch = self.task.collate(self.data.features)
        self.dense = self.base.load()
        made = simpler(
            self.base, self.dense, {}, self.task, self.data, no_norm=True, activation=None, size=len(self.data)
        )
        self.model, self.fitted = made.model, made.norms

    def logits(self) -> Tensor:
        seen: list[Any] = []
        handle = self.model.register_forward_hook(lambda _, __, output: seen.append(output.logits))
        with torch.no_grad():
            self.task.loss(self.model, self.batch)
        handle.remove()
        found: Tensor = seen[0]
        return found


@pytest.fixture
def subject(
    request: pytest.FixtureRequest,
    model_folder: Folder,
    translation_data: Path,
    classification_data: Path,
    running_text: Path,
) -> Subject:
    kinds = {"t5": translation_data, "bart": translation_data, "gpt2": running_text, "llama": running_text}
    return Subject(model_folder(request.param), kinds.get(request.param, classification_data))


@pytest.mark.parametrize("subject", FAMILIES, indirect=True)
def test_norms_are_fitted_and_what_is_folded_answers_the_same(request: Any, subject: Subject) -> None:
    count, foldable = FAMILIES[request.node.callspec.params["subject"]]
    assert len(subject.fitted) == count
    assert all(0 <= one.error < 1 for one in subject.fitted)
    before = subject.logits()
    folded = fold_norms(subject.model, subject.base.layout, subject.task, subject.batch)
    assert set(foldable) <= set(folded)
    assert bool(foldable) == bool(folded)
    assert all(isinstance(subject.model.get_submodule(path), nn.Identity) for path in folded)
    assert torch.allclose(before, subject.logits(), atol=1e-5 * float(before.abs().max()))


def test_norms_of_a_shrunk_model_are_those_of_all_its_layers(
    model_folder: Folder, running_text: Path, tmp_path: Path
) -> None:
    """Layers without neurons are layers: their norms are fitted, and folded into what is left to read them."""
    masked = masked_folder(
        model_folder("gpt2"), tmp_path / "m", lambda _, u: range(u.count if u.kind == "feed_forward" else 0)
    )
    (tmp_path / "small").mkdir()
    shrink_into(tmp_path / "small", masked, "exact")
    subject = Subject(tmp_path / "small", running_text)
    assert len(subject.fitted) == 5
    before = subject.logits()
    folded = fold_norms(subject.model, subject.base.layout, subject.task, subject.batch)
    assert folded == ["transformer.h.0.ln_1", "transformer.h.1.ln_1"]
    assert torch.allclose(before, subject.logits(), atol=1e-5 * float(before.abs().max()))


@pytest.mark.parametrize("subject", ["distilbert"], indirect=True)
def test_a_scale_and_a_shift_are_the_least_squares_of_each_feature(subject: Subject) -> None:
    real = subject.task.real_tokens(subject.batch)["encoder"]
    for path in ("distilbert.embeddings.LayerNorm", "distilbert.transformer.layer.1.sa_layer_norm"):
        norm: Any = subject.model.get_submodule(path)
        seen: list[Tensor] = []
        norm.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0][real]))
        subject.dense.get_submodule(path).register_forward_hook(lambda _, __, y, seen=seen: seen.append(y[real]))
        for model in (subject.model, subject.dense):
            subject.task.loss(model, subject.batch)
        x, y = (states.detach().double().numpy() for states in seen)
        for j in range(x.shape[1]):
            wanted = np.linalg.lstsq(np.stack([x[:, j], np.ones(len(x))], 1), y[:, j], rcond=None)[0]
            assert norm.weight[:, j].tolist() == pytest.approx(wanted.tolist(), rel=1e-3, abs=1e-4)
