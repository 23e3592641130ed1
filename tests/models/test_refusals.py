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
from composer.recipe import Recipe
from composer.tasks import DataOptions, load_tokenizer, open_task
from composer.workspace import Workspace

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


def test_a_new_head_is_the_same_at_every_load_and_another_with_another_seed(
    distilbert_folder: Path, tmp_path: Path
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        del weights["classifier.weight"]

    folder = spoilt(distilbert_folder, tmp_path / "m", spoil)
    first, again, other = (Workspace(Recipe(model=str(folder), new_head=True, seed=seed)).base for seed in (3, 3, 4))
    heads = []
    for base in (first, again, other):
        torch.manual_seed(len(heads))  # whatever was drawn before
        heads.append(dict(base.load().named_parameters())["classifier.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].abs().sum() > 0
    assert first.fingerprint == again.fingerprint != other.fingerprint
    with pytest.raises(ModelError, match=r"^--new-head: .*: the checkpoint has all weights of a DistilBertForSeq"):
        BaseModel(distilbert_folder, 3).load()


def test_weights_of_other_sizes_than_config_json_says_are_named(distilbert_folder: Path, tmp_path: Path) -> None:
    folder = changed(distilbert_folder, tmp_path / "m", id2label={str(i): f"L{i}" for i in range(5)}, label2id=None)
    with pytest.raises(ModelError, match=r"'classifier.bias' is \(2,\) in the checkpoint, and \(5,\) by config.json"):
        BaseModel(folder).load()


def test_an_architecture_that_is_no_list_is_named(distilbert_folder: Path, tmp_path: Path) -> None:
    folder = changed(distilbert_folder, tmp_path / "m", architectures="BertModel")
    with pytest.raises(ModelError, match=r"config\.json: architectures: got 'BertModel'; allowed: a list of one name"):
        _ = BaseModel(folder).config


def test_an_adapter_beside_a_model_is_not_passed_over(distilbert_folder: Path, tmp_path: Path) -> None:
    folder = changed(distilbert_folder, tmp_path / "m")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds a peft adapter \(adapter_config.json\) beside a model"):
        _ = BaseModel(folder).layout


@pytest.mark.parametrize(("file", "says"), [("scheme-1.json", "a library of"), ("0/config.json", "a folder of models")])
def test_folders_of_a_run_are_said_to_be_what_they_are(file: str, says: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(ModelError, match=rf"config\.json: no such file; the folder is {says}"):
        _ = BaseModel(tmp_path).fingerprint


def test_a_new_head_stands_for_nothing_but_the_head(distilbert_folder: Path, tmp_path: Path) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        del weights["classifier.weight"], weights["distilbert.embeddings.LayerNorm.weight"]

    folder = spoilt(distilbert_folder, tmp_path / "m", spoil)
    with pytest.raises(ModelError, match=r"no weights for 'distilbert.embeddings.LayerNorm.weight' .* not of the head"):
        BaseModel(folder, 0).load()


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


def test_a_head_for_several_labels_is_not_asked_for_one(distilbert_folder: Path, tmp_path: Path) -> None:
    folder = changed(distilbert_folder, tmp_path / "m", problem_type="multi_label_classification")
    base = BaseModel(folder)
    assert open_task(DataOptions(data="none"), base.folder, base.config).name == "multi_label_classification"
    with pytest.raises(
        ModelError, match=r"got 'multi_label_classification'; allowed for --task classification: single"
    ):
        open_task(DataOptions(data="none", task="classification"), base.folder, base.config)
