"""Adapters of peft under masks: trained, merged and refused. Skipped where peft is not installed (`make test-peft`)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

import composer
from composer.cli.app import call
from composer.errors import ModelError
from composer.models.folder import BaseModel
from tests.conftest import distilbert_config

peft = pytest.importorskip("peft", reason="peft is not installed: `make test-peft`")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft's own
IDS = torch.tensor([[3, 7, 9, 4], [3, 8, 6, 4]])


def masked(folder: Path, place: Path, *, structured: bool) -> Path:
    """The model in ``folder`` without half of its feed-forwards: neurons, or single weights."""
    base = BaseModel(folder)
    model = base.load()
    with torch.no_grad():
        for layer in model.distilbert.transformer.layer:
            if structured:
                layer.ffn.lin1.weight[::2], layer.ffn.lin1.bias[::2], layer.ffn.lin2.weight[:, ::2] = 0.0, 0.0, 0.0
            else:
                layer.ffn.lin1.weight.view(-1)[::5] = layer.ffn.lin2.weight.view(-1)[::5] = 0.0
    place.mkdir()
    base.save(model, place)
    return place


def adapted(folder: Path | nn.Module, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model = BaseModel(folder).load() if isinstance(folder, Path) else folder
    config = peft.LoraConfig(r=2, target_modules=["lin1", "lin2"], init_lora_weights=False, **options)
    return peft.get_peft_model(model, config)


def zeros(folder: Path) -> dict[str, Tensor]:
    return {n: w == 0 for n, w in load_file(folder / "model.safetensors").items() if ".ffn.lin" in n and w.dim() == 2}


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_merged_adapter_leaves_every_zero(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], dora: bool
) -> None:
    model = masked(distilbert_folder, tmp_path / "2", structured=False)
    adapted(model, use_dora=dora).save_pretrained(tmp_path / "lora")
    words = ["merge", str(tmp_path / "lora"), "--into", str(model), "--data", str(classification_data)]
    assert call(words) == 0
    said = capfd.readouterr().out
    assert "308 before, 0 with the adapter as it is, 308 merged (308 set again)" in said
    assert "validation loss: " in said
    merged = zeros(tmp_path / "2-merged")
    assert all(torch.equal(merged[name], before) for name, before in zeros(model).items())
    changed = load_file(tmp_path / "2-merged" / "model.safetensors")
    assert any(not torch.equal(w, changed[n]) for n, w in load_file(model / "model.safetensors").items())
    assert call(words) == 0
    assert "is up to date" in capfd.readouterr().out


@pytest.mark.parametrize("structured", [True, False], ids=["neurons", "weights"])
def test_masked_adapters_learn_and_merge_exactly(distilbert_folder: Path, tmp_path: Path, structured: bool) -> None:
    folder = masked(distilbert_folder, tmp_path / "2", structured=structured)
    model = adapted(folder, lora_dropout=0.0)
    done = composer.mask_adapters(model)
    assert (done.factored, done.masked, done.dense) == ((4, 0, 0) if structured else (0, 4, 0))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05, weight_decay=0.1)
    first = model(input_ids=IDS, labels=torch.tensor([0, 1])).loss
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        answers = model(input_ids=IDS)
        model.save_pretrained(tmp_path / "lora")
        merged = model.merge_and_unload()
        assert torch.allclose(merged(input_ids=IDS).logits, answers.logits, atol=1e-5)
    assert not torch.equal(first, model(input_ids=IDS, labels=torch.tensor([0, 1])).loss)
    for name, before in zeros(folder).items():
        assert torch.equal(dict(merged.named_parameters())[name] == 0, before), name
    again = composer.merge(composer.load_recipe(file=False), tmp_path / "lora", folder)
    with torch.no_grad():
        assert torch.allclose(BaseModel(again.output).load()(input_ids=IDS).logits, answers.logits, atol=1e-5)


def test_adapters_of_another_base_are_refused(
    distilbert_folder: Path, bert_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = masked(distilbert_folder, tmp_path / "2", structured=True)
    adapted(model).save_pretrained(tmp_path / "lora")
    wider = transformers.DistilBertForSequenceClassification(distilbert_config(hidden_dim=32))
    adapted(wider).save_pretrained(tmp_path / "wider")
    assert call(["merge", str(tmp_path / "wider"), "--into", str(model)]) == 2
    assert "adapter of 32 features" in capfd.readouterr().err
    other = shutil.copytree(tmp_path / "lora", tmp_path / "other")
    config = (other / "adapter_config.json").read_text()
    named = config.replace(str(model), str(bert_folder))
    assert named != config
    (other / "adapter_config.json").write_text(named)
    assert call(["merge", str(other), "--into", str(model)]) == 2
    assert f"was made for {bert_folder}" in capfd.readouterr().err
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        composer.merge(composer.load_recipe(file=False), model, model, output=tmp_path / "x")
    assert not (tmp_path / "2-merged").exists()


def test_a_model_without_zeros_or_adapters_has_nothing_to_mask(distilbert_folder: Path) -> None:
    with pytest.raises(ModelError, match="no adapted projection has zeros"):
        composer.mask_adapters(adapted(distilbert_folder))
    with pytest.raises(ModelError, match="has no LoRA"):
        composer.mask_adapters(BaseModel(distilbert_folder).load())


def test_an_adapter_stands_where_a_model_is_asked(
    distilbert_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, adapter = masked(distilbert_folder, tmp_path / "2", structured=True), tmp_path / "lora"
    adapted(model).save_pretrained(adapter)
    before, update = load_file(model / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    merged = load_file(BaseModel(adapter).folder / "model.safetensors")
    for name, weight in before.items():
        a, b = (update.get(f"base_model.model.{name.removesuffix('weight')}lora_{x}.weight") for x in "AB")
        wanted = weight if a is None or b is None else torch.where(weight != 0, weight + 8 / 2 * b @ a, 0.0)
        assert torch.allclose(merged[name], wanted, atol=1e-6), name
        assert torch.equal(merged[name] == 0, wanted == 0), name
    line = f"{adapter}: an adapter of peft; merged into {model}, in {tmp_path / 'cache'}"
    assert call(["shrink", str(adapter)]) == 0  # named after the adapter, from the merged weights
    assert line in capfd.readouterr().err
    assert BaseModel(tmp_path / "lora-shrunk").parameters < BaseModel(model).parameters
    monkeypatch.setitem(sys.modules, "peft", None)  # what is merged is not merged again
    words = ["generate-config", "-m", str(adapter), "--linear", "0.5", "-o", str(tmp_path / "conf.json")]
    assert call(words) == 0
    assert capfd.readouterr().err.count(line) == 1
    shutil.rmtree(tmp_path / "cache")
    assert call(words) == 2
    assert capfd.readouterr().err == (
        f"error: {adapter}: needs peft, which is not installed; pip install 'composer-pruning[peft]'\n"
    )


def test_an_adapter_whose_base_is_not_there_or_another_is_refused_as_a_model(
    distilbert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    adapter = tmp_path / "lora"
    adapted(distilbert_folder).save_pretrained(adapter)
    written = (adapter / "adapter_config.json").read_text()

    def refused(named: str | Path, says: str) -> None:
        (adapter / "adapter_config.json").write_text(written.replace(str(distilbert_folder), str(named)))
        with pytest.raises(ModelError, match=says):
            BaseModel(adapter)

    at = r"lora/adapter_config\.json: base_model_name_or_path: got "
    refused("gone", rf"{at}'gone': gone: no such model folder.*compose merge \S+ --into MODEL")
    refused("", rf"{at}''; allowed: the model that it was made for")
    refused(adapter, rf"{at}'\S+', the adapter itself")
    other = distilbert_config(n_layers=1)
    transformers.DistilBertForSequenceClassification(other).save_pretrained(tmp_path / "fewer")
    refused(
        tmp_path / "fewer",
        r"has weights for 'distilbert\.transformer\.layer\.1\.ffn\.lin1' \(2 unknown\), which \S+few",
    )
    transformers.DistilBertForSequenceClassification(distilbert_config(hidden_dim=32)).save_pretrained(
        tmp_path / "wide"
    )
    refused(tmp_path / "wide", r"lin1: adapter of 24 features, \S+wide has 32")
    (tmp_path / "none").mkdir()
    shutil.copy(adapter / "adapter_config.json", tmp_path / "none")
    with pytest.raises(ModelError, match=r"none: has no adapter_model\.safetensors"):
        BaseModel(tmp_path / "none")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
