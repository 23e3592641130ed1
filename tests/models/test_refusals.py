"""Folders that are not models of ours, and checkpoints that are not whole: one line each, before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from composer.errors import ModelError
from composer.models.folder import BaseModel
from composer.tasks import DataOptions, load_tokenizer, open_task

Folder = Callable[..., Path]


def changed(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a model folder with other keys in its config.json; None takes one out."""
    shutil.copytree(source, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def spoilt(source: Path, folder: Path, spoil: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A copy of a model folder with other weights."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    spoil(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("adapter_config.json", "a peft adapter"),
        ("model_index.json", "a diffusers pipeline"),
        ("conf.json", "a folder of runs"),
        ("snapshots", "a folder of the hub's cache"),
        ("model.gguf", "GGUF weights"),
        ("model.onnx", "an ONNX export"),
        ("tokenizer_config.json", "a tokenizer without its model"),
    ],
)
def test_a_folder_of_another_kind_is_named(tmp_path: Path, file: str, says: str) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(ModelError, match=rf"config\.json: no such file; the folder is {says} \({file}\); "):
        _ = BaseModel(tmp_path).layout


def test_an_empty_folder_says_what_a_model_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json: no such file; a model folder holds config\.json and"):
        _ = BaseModel(tmp_path).layout


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", None])
def test_quantised_checkpoints_are_refused_at_config_json(t5_folder: Path, tmp_path: Path, method: str | None) -> None:
    said = {"bits": 4} | ({"quant_method": method} if method else {})
    folder = changed(t5_folder, tmp_path / "q", quantization_config=said)
    with pytest.raises(ModelError, match=rf"quantised \({method or 'method not named'}\).*take the float checkpoint"):
        _ = BaseModel(folder).layout


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_named(t5_folder: Path, tmp_path: Path, value: float) -> None:
    name = "encoder.block.1.layer.1.DenseReluDense.wi.weight"

    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[name][3, 2] = value

    folder = spoilt(t5_folder, tmp_path / "m", spoil)
    with pytest.raises(ModelError, match=rf"weight '{name}' is not finite"):
        BaseModel(folder).load()


def test_a_head_that_was_never_trained_is_refused(distilbert_folder: Path, tmp_path: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if name.startswith("classifier")]:
            del weights[name]

    folder = spoilt(distilbert_folder, tmp_path / "m", spoil)
    with pytest.raises(ModelError, match=r"no weights for 'classifier\.bias' \(2 missing\): its head was never"):
        BaseModel(folder).load()


def test_without_an_architecture_the_body_is_what_is_pruned(distilbert_folder: Path, tmp_path: Path) -> None:
    base = BaseModel(changed(distilbert_folder, tmp_path / "m", architectures=None))
    base.load()
    assert all(not target.path.startswith("distilbert.") for target in base.layout.targets)
    assert len(base.layout.targets) == len(BaseModel(distilbert_folder).layout.targets)


def test_code_of_a_folder_never_runs(distilbert_folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "it-ran"
    maps = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoModelForSequenceClassification": "own.Own"}
    folder = changed(distilbert_folder, tmp_path / "m", auto_map=maps)
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nraise SystemExit('the code of the folder runs')\n")
    BaseModel(folder).load()  # by its model_type, with the classes of transformers
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text()) | {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    path.write_text(json.dumps(said))
    with suppress(ModelError):  # transformers may take tokenizer.json for it, or refuse
        load_tokenizer(folder)
    assert not ran.exists()


def test_several_labels_for_one_text_are_refused_by_name(distilbert_folder: Path, tmp_path: Path) -> None:
    folder = changed(distilbert_folder, tmp_path / "m", problem_type="multi_label_classification")
    base = BaseModel(folder)
    with pytest.raises(ModelError, match=r"problem_type: got 'multi_label_classification'; allowed: single_label"):
        open_task(DataOptions(data="none"), base.folder, base.config)
