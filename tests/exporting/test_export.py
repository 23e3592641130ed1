"""Exports give the answers of the model that they come from: `make test-export` brings what runs them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import composer
from composer.errors import ModelError, OutputError
from composer.exporting.convert import convert
from composer.models.exports import RUNTIMES, Form, export_of
from composer.models.folder import BaseModel
from composer.recipe import Recipe
from tests.cli.conftest import Compose, compose  # noqa: F401  (a fixture)
from tests.conftest import Folder

pytestmark = pytest.mark.filterwarnings("ignore")


def needs(form: Form) -> Any:
    there = all(find_spec(name) for name in RUNTIMES[form].packages)
    return pytest.mark.skipif(not there, reason=f"{RUNTIMES[form].extra} is not installed: `make test-export`")


def recipe(data: Path, **more: Any) -> Recipe:
    return Recipe(data=str(data), max_source_length=16, max_target_length=8, device="cpu", **more)


@needs("onnx")
@pytest.mark.parametrize("name", ["distilbert", "gpt2"])
def test_a_graph_gives_the_same_logits_for_any_shape(name: str, tmp_path: Path, model_folder: Folder) -> None:
    base = BaseModel(model_folder(name))
    (tmp_path / "x").mkdir()
    model, exported = convert(base, "onnx", tmp_path / "x"), BaseModel(tmp_path / "x").load()
    for shape in ((1, 5), (3, 11)):
        ids = torch.randint(6, 20, shape, generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(ids)
        mask[-1, 3:] = 0
        with torch.no_grad():
            want, got = (m(input_ids=ids, attention_mask=mask).logits for m in (model, exported))
        real = mask.bool() if want.dim() == 3 else slice(None)
        assert torch.allclose(got[real], want[real], atol=1e-4)


@needs("onnx")
def test_the_whole_way_in_8_bits(compose: Compose, distilbert_folder: Path, classification_data: Path) -> None:  # noqa: F811
    data = ("--data", str(classification_data))
    result = compose("export", str(distilbert_folder), "--to", "onnx-int8", *data, "-o", "small")
    assert result.status == 0, result.err
    assert "accuracy (8 examples)" in result.out
    assert "small: onnx-int8 of" in result.out
    assert compose("export", str(distilbert_folder), "--to", "onnx-int8", *data, "-o", "small").out.endswith(
        "up to date\n"
    )
    assert compose("evaluate", "small", *data).status == 0
    assert compose("predict", "small", "the old man film").out.startswith(("negative", "positive"))
    timed = compose("speed", str(distilbert_folder), "small", "--batch-size", "1", "--length", "8", "--no-memory")
    assert "small (onnx-int8)" in timed.out
    refused = compose("show", "small")
    assert refused.status == 2
    assert "small: is an export for ONNX Runtime, int8: it can be evaluated" in refused.err


@pytest.mark.parametrize(
    ("name", "form"),
    [pytest.param("t5", "onnx", marks=needs("onnx")), pytest.param("bart", "openvino", marks=needs("openvino"))],
)
def test_a_translator_in_two_graphs_searches_as_in_pytorch(
    name: str, form: Form, tmp_path: Path, model_folder: Folder, translation_data: Path
) -> None:
    beams = recipe(translation_data, num_beams=3)
    said = composer.export(beams, model_folder(name), form, output=tmp_path / "x").summary
    assert said["difference"] < 1e-4
    assert said["metrics"]["bleu"][0] == said["metrics"]["bleu"][1]
    assert said["loss"][1] == pytest.approx(said["loss"][0], rel=1e-4)
    sentences = ["the man sees a dog", "the old cat likes the boy"]
    one, other = (composer.predict(beams, m, sentences) for m in (model_folder(name), tmp_path / "x"))
    assert one == other


@needs("openvino")
def test_openvino(tmp_path: Path, distilbert_folder: Path, classification_data: Path) -> None:
    outcome = composer.export(recipe(classification_data), distilbert_folder, "openvino", output=tmp_path / "x")
    assert outcome.summary["difference"] < 1e-4
    assert outcome.summary["metrics"]["accuracy"][0] == outcome.summary["metrics"]["accuracy"][1]


@needs("ct2")
@pytest.mark.parametrize("name", ["t5", "gated"])
def test_a_translator_gives_the_same_translations_and_losses(
    name: str, tmp_path: Path, model_folder: Folder, translation_data: Path
) -> None:
    before = {n: p.clone() for n, p in BaseModel(model_folder(name)).load().named_parameters()}
    outcome = composer.export(recipe(translation_data), model_folder(name), "ct2", output=tmp_path / "x")
    said = outcome.summary
    assert said["difference"] < 1e-4
    assert said["metrics"]["bleu"][0] == said["metrics"]["bleu"][1]
    assert said["loss"][1] == pytest.approx(said["loss"][0], rel=1e-4)
    after = BaseModel(model_folder(name)).load().named_parameters()
    assert all(torch.equal(before[n], p) for n, p in after)
    sentences = ["the man sees a dog", "the old cat likes the boy"]
    one, other = (
        composer.predict(recipe(translation_data), m, sentences) for m in (model_folder(name), tmp_path / "x")
    )
    assert one == other


def test_what_is_missing_is_named_in_a_line(
    compose: Compose,  # noqa: F811
    distilbert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("composer.models.exports.find_spec", lambda _: None)
    result = compose("export", str(distilbert_folder), "--to", "onnx", "-o", "x")
    assert result.status == 2
    assert result.err == (
        "error: onnx: needs onnx, onnxscript, onnxruntime, not installed; pip install 'composer-pruning[onnx]'\n"
    )
    assert not Path("x").exists()


def test_forms_that_are_not_for_this_model_are_refused(distilbert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"--to: got ct2, which is for translation; .*DistilBert.*; use onnx"):
        composer.export(Recipe(), distilbert_folder, "ct2", output=tmp_path / "x")
    with pytest.raises(OutputError, match="--to: got 'tflite'; allowed: onnx, onnx-int8"):
        composer.export(Recipe(), distilbert_folder, "tflite", output=tmp_path / "x")  # type: ignore[arg-type]


def test_an_export_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "composer.json").write_text('{"export": {"form": "tflite"}}')
    with pytest.raises(ModelError, match=r"composer.json: form: got 'tflite'; allowed: onnx"):
        export_of(tmp_path)
