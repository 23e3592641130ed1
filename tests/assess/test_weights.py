"""Weights streamed from the files, against the loaded model."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from composer.assess.measure.weights import assess_weights
from composer.errors import ModelError
from composer.models.folder import BaseModel
from tests.conftest import Folder


def loaded(base: BaseModel) -> dict[str, Any]:
    """Target path -> all its weights in the loaded model, float64."""
    parameters = dict(base.load().named_parameters())
    return {
        t.path: torch.cat([p.of(parameters[p.weight]).detach().double().reshape(-1) for p in t.projections]).numpy()
        for t in base.layout.targets
    }


def check(base: BaseModel, folder: Path) -> None:
    content = assess_weights(base, folder)
    wanted = loaded(base)
    edges = np.array(content["edges"])
    assert edges[0] == 0
    assert (np.diff(edges) > 0).all()
    assert [row["target"] for row in content["targets"]] == list(wanted)
    for row in content["targets"]:
        values = wanted[row["target"]]
        size = np.abs(values)
        assert sum(row["counts"]) == row["count"] == values.size
        assert row["counts"] == np.histogram(size, edges)[0].tolist()
        assert row["zeros"] == (values == 0).sum()
        assert row["mean"] == pytest.approx(values.mean(), abs=1e-9)
        assert row["std"] == pytest.approx(values.std(), rel=1e-5)
        assert row["max_abs"] == pytest.approx(size.max())
        assert row["outliers"] == (size > 6 * row["std"]).sum()
        for q, value in row["quantiles"].items():
            assert value == pytest.approx(np.quantile(size, float(q)), rel=1e-4, abs=1e-7)
    together = np.abs(np.concatenate(list(wanted.values())))
    for point in content["cutoffs"]:
        assert point["share_below"]["all"] == pytest.approx((together < point["cutoff"]).mean() if point is not
                                                            content["cutoffs"][-1] else 1.0)  # fmt: skip


@pytest.mark.parametrize("name", ["t5", "gpt2", "llama", "bart", "bert", "distilbert"])
def test_every_figure_is_the_loaded_model_s(name: str, model_folder: Folder, tmp_path: Path) -> None:
    check(BaseModel(model_folder(name)), tmp_path)


def copied(source: Path, folder: Path, tensors: dict[str, Any]) -> BaseModel:
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text("utf-8"), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return BaseModel(folder)


def test_shards_and_half_precision(t5_folder: Path, tmp_path: Path) -> None:
    whole = load_file(t5_folder / "model.safetensors")
    half = {name: tensor.to(torch.bfloat16) for name, tensor in whole.items()}
    base = copied(t5_folder, tmp_path / "m", half)
    names = sorted(half)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in files.items():
        save_file({name: half[name] for name in some}, base.folder / file)
    (base.folder / "model.safetensors").unlink()
    places = {name: file for file, some in files.items() for name in some}
    (base.folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    content = assess_weights(base, tmp_path)
    first = base.layout.targets[0]
    values = torch.cat([half[p.weight].double().reshape(-1) for p in first.projections])
    assert content["targets"][0]["max_abs"] == values.abs().max().item()
    assert content["targets"][0]["counts"] == np.histogram(values.abs().numpy(), content["edges"])[0].tolist()


def test_a_checkpoint_without_the_prefix_of_its_head(model_folder: Folder, tmp_path: Path) -> None:
    source = model_folder("bert")
    bare = {name.removeprefix("bert."): tensor for name, tensor in load_file(source / "model.safetensors").items()}
    base = copied(source, tmp_path / "m", bare)
    given = assess_weights(BaseModel(source), tmp_path)
    assert assess_weights(base, tmp_path)["targets"] == given["targets"]


def test_zeros_stand_in_the_first_bin(t5_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(t5_folder / "model.safetensors")
    base = BaseModel(t5_folder)
    name = base.layout.targets[1].projections[0].weight
    tensors[name] = torch.zeros_like(tensors[name])
    row = assess_weights(copied(t5_folder, tmp_path / "m", tensors), tmp_path)["targets"][1]
    assert row["zeros"] == row["count"] == row["counts"][0]
    assert row["std"] == row["max_abs"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: None, "the checkpoint has no weights for"),
        (lambda tensor: tensor[:2].clone(), "has a weight of shape"),
        (lambda tensor: tensor * math.nan, "holds weights that are not finite"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "is stored as F8_E4M3; allowed: F64, F32, F16, BF16"),
    ],
)
def test_what_cannot_be_read_is_named(t5_folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    tensors = load_file(t5_folder / "model.safetensors")
    name = BaseModel(t5_folder).layout.targets[0].projections[0].weight
    made = change(tensors.pop(name))
    base = copied(t5_folder, tmp_path / "m", tensors if made is None else {**tensors, name: made})
    with pytest.raises(ModelError, match=message):
        assess_weights(base, tmp_path)
    assert not (tmp_path / "weights.json").exists()


def test_the_csv_has_the_same_rows(t5_folder: Path, tmp_path: Path) -> None:
    content = assess_weights(BaseModel(t5_folder), tmp_path)
    assert json.loads((tmp_path / "weights.json").read_text("utf-8")) == content
    with (tmp_path / "weights.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["target"] for row in rows] == [row["target"] for row in content["targets"]]
    assert [int(row["count"]) for row in rows] == [row["count"] for row in content["targets"]]


def test_layers_and_stacks_are_named(t5_folder: Path, model_folder: Folder, tmp_path: Path) -> None:
    rows = assess_weights(BaseModel(t5_folder), tmp_path)["targets"]
    assert {(row["layer"], row["part"]) for row in rows} == {
        (f"{stack}.block.{i}", stack) for stack in ("encoder", "decoder") for i in range(2)
    }
    assert {row["part"] for row in assess_weights(BaseModel(model_folder("gpt2")), tmp_path)["targets"]} == {""}
