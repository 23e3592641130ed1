"""Families: their tables against real models, and folders that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from composer.errors import ModelError
from composer.models.any_linear import skeleton
from composer.models.families import known_types
from composer.models.folder import BaseModel, check_layout
from composer.models.layouts import layout_of
from tests.reference import modules as reference
from tests.zoo import COUSINS, ZOO, make_config

Folder = Callable[[str], Path]

ALL = (
    "t5",
    "gated",
    "mt5",
    "t5-encoder",
    "t5-body",
    "distilbert",
    "distilbert-body",
    "bert",
    "bert-masked",
    "bert-body",
    *ZOO,
)

BERT = {
    "model_type": "bert",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture(scope="module", params=ALL)
def base(request: pytest.FixtureRequest, model_folder: Folder) -> BaseModel:
    return BaseModel(model_folder(request.param))


@pytest.fixture(scope="module")
def model(base: BaseModel) -> nn.Module:
    return base.load()


def test_targets_are_all_linear_modules_but_heads(base: BaseModel, model: nn.Module) -> None:
    found = reference.discover(model)
    named = {target.path: {p.path: (p.stored, p.bias) for p in target.projections} for target in base.layout.targets}
    assert named == found
    assert len(base.layout.paths) == len(set(base.layout.paths))


def test_attention_targets_have_the_models_heads(base: BaseModel, model: nn.Module) -> None:
    for target in base.layout.targets:
        wanted = ("attention", 3, 4) if len(target.projections) == 3 else ("linear", 1, 0)
        assert (target.kind, len(target.projections), target.heads) == wanted
        config: Any = model.config
        assert target.queries == (config.num_attention_heads // 4 if target.heads else 1)


def test_targets_stand_in_the_order_in_which_they_run(base: BaseModel, model: nn.Module) -> None:
    first_calls: list[str] = []
    owner = {p.path: t.path for t in base.layout.targets for p in t.projections}
    handles = [
        module.register_forward_pre_hook(lambda _, __, path=path: first_calls.append(owner[path]))
        for path, module in reference.linear_modules(model)
    ]
    ids = torch.tensor([[6, 7, 8]])
    with torch.no_grad():
        both = len({p.stream for t in base.layout.targets for p in t.projections}) == 2
        model(ids, **({"decoder_input_ids": ids} if both else {}))
    for handle in handles:
        handle.remove()
    assert list(dict.fromkeys(first_calls)) == list(base.layout.paths)


def test_blocks_cover_each_target_once_per_level(base: BaseModel, model: nn.Module) -> None:
    paths = dict(model.named_modules())
    for level in ("module", "sublayer", "layer"):
        blocks = list(base.layout.at(level))
        assert [t for block in blocks for t in block.targets] == list(base.layout.paths)
        assert len({block.path for block in blocks}) == len(blocks)
        for block in blocks:
            assert {*block.chain, *block.owns} <= set(paths)
            assert block.tap is None or block.tap in paths
            for target in block.targets:
                for projection in base.layout.target(target).projections:
                    assert any(projection.path == p or projection.path.startswith(f"{p}.") for p in block.owns)


def test_a_sublayer_is_one_attention_or_one_feed_forward(base: BaseModel) -> None:
    kinds = {tuple(base.layout.target(t).kind for t in block.targets) for block in base.layout.at("sublayer")}
    assert kinds <= {("attention", "linear"), ("linear", "linear"), ("linear", "linear", "linear")}
    assert len(kinds) == 2


def test_the_model_is_loaded_as_float32_in_evaluation_mode_without_cache(model: nn.Module) -> None:
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    for module in model.modules():
        assert not getattr(getattr(module, "config", None), "use_cache", False)


def test_units_and_weights_are_counted_from_the_shapes(base: BaseModel, model: nn.Module) -> None:
    sizes = {t: sum(shape[0] * shape[1] for shape, _ in ps.values()) for t, ps in reference.discover(model).items()}
    for target in base.layout.targets:
        assert target.parameters == sizes[target.path]
        for rate in (0.1, 0.25, 0.5, 0.9):
            if target.kind == "attention":
                assert target.removed_units(rate) == round(rate * 4)
                assert target.removed_weights(rate) == round(rate * 4) * sizes[target.path] // 4
            else:
                assert target.removed_weights(rate) == target.removed_units(rate) == round(rate * sizes[target.path])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["t5", "bert"])
def test_half_precision_checkpoints_are_loaded_as_float32(
    model_folder: Folder, tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    folder = shutil.copytree(model_folder(name), tmp_path / "half")
    halved = {key: value.to(dtype) for key, value in load_file(folder / "model.safetensors").items()}
    save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})

    parameters = dict(BaseModel(folder).load().named_parameters())

    assert {p.dtype for p in parameters.values()} == {torch.float32}
    for key, value in halved.items():
        if key in parameters:
            assert torch.equal(parameters[key], value.float())


@pytest.mark.parametrize("name", ["t5", "distilbert", "bert"])
def test_a_saved_model_is_an_ordinary_folder_with_the_same_answers(
    model_folder: Folder, tmp_path: Path, name: str
) -> None:
    base = BaseModel(model_folder(name))
    model = base.load()
    base.save(model, tmp_path / "saved")

    kind = "AutoModelForSeq2SeqLM" if name == "t5" else "AutoModelForSequenceClassification"
    again = getattr(transformers, kind).from_pretrained(tmp_path / "saved").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    batch = {k: v for k, v in tokenizer("the old dog", return_tensors="pt").items() if k != "token_type_ids"}
    if name == "t5":
        batch["decoder_input_ids"] = batch["input_ids"]
        assert again.config.use_cache
        assert (tmp_path / "saved" / "generation_config.json").is_file()
    with torch.no_grad():
        assert torch.allclose(again(**batch).logits, model(**batch).logits, atol=1e-6)
    assert not getattr(model.config, "use_cache", False)
    assert not list((tmp_path / "saved").glob("*.bin"))
    assert BaseModel(tmp_path / "saved").fingerprint == base.fingerprint


def test_parameters_are_counted_on_disk(model_folder: Folder) -> None:
    base = BaseModel(model_folder("bert"))
    assert base.parameters == sum(p.numel() for p in base.load().parameters())


@pytest.mark.parametrize("model_type", ["gpt-2", None, 3, "T5"])
def test_an_unknown_family_is_refused_with_those_that_are_known(model_type: Any) -> None:
    with pytest.raises(
        ModelError, match=r"^here: model_type is .*; allowed: bart, bert, .*, distilbert, .*; or any .* with --targets$"
    ):
        layout_of({"model_type": model_type}, "here")
    with pytest.raises(ModelError, match="model_type is None"):
        layout_of({})


def test_who_lacks_a_package_is_told_where_it_was_looked_for() -> None:
    with pytest.raises(
        ModelError, match=r"pip install that package beside composer \(entry points composer\.families of the installed"
    ) as refused:
        layout_of({"model_type": "somebodys-own"}, "models/base/config.json")
    assert "\n" not in str(refused.value)


def test_all_missing_sizes_are_named() -> None:
    with pytest.raises(ModelError, match=r"^x: a BERT model needs whole numbers for: intermediate_size, num_hidden"):
        layout_of({"model_type": "bert", "hidden_size": 8, "num_hidden_layers": "2"}, "x")


@pytest.mark.parametrize("value", [0, -2, True, 2.0, None, "2"])
def test_sizes_that_are_no_whole_numbers_above_zero_are_refused(value: Any) -> None:
    with pytest.raises(ModelError, match="needs whole numbers for: num_attention_heads"):
        layout_of({**BERT, "num_attention_heads": value})


@pytest.mark.parametrize("value", [0, "2", 2.0])
def test_sizes_that_need_not_be_given_are_checked_where_they_are(value: Any) -> None:
    llama = {**BERT, "model_type": "llama"}
    assert layout_of({**llama, "num_key_value_heads": None}).targets[0].heads == 2
    with pytest.raises(ModelError, match=r"a Llama model needs whole numbers for: num_key_value_heads$"):
        layout_of({**llama, "num_key_value_heads": value})


@pytest.mark.parametrize("name", COUSINS)
def test_every_model_type_of_a_table_fits_it(name: str) -> None:
    architecture, settings = COUSINS[name]
    config = make_config(architecture, settings, 40).to_dict() | {"architectures": [architecture]}
    layout, model = layout_of(config), skeleton(config, name)
    assert layout.listed
    check_layout(model, layout, name)
    found = reference.discover(model)
    assert {t.path: {p.path: (p.stored, p.bias) for p in t.projections} for t in layout.targets} == found


def test_every_model_type_is_looked_at() -> None:
    shown = {getattr(transformers, a).config_class.model_type for a, _ in (*ZOO.values(), *COUSINS.values())}
    assert shown | {"t5", "mt5", "distilbert", "bert"} == set(known_types())
    table = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in known_types() if f"`{name}`" not in table] == []


def test_a_model_that_does_not_fit_its_table_is_refused(model_folder: Folder) -> None:
    base = BaseModel(model_folder("bert"))
    model = base.load()
    wider = layout_of({**base.config, "intermediate_size": 32})
    with pytest.raises(
        ModelError,
        match=r"tiny: 'bert.encoder.layer.0.intermediate.dense' has a weight of shape \(24, 16\); .* says \(32, 16\)",
    ):
        check_layout(model, wider, "tiny")
    bare = layout_of({**base.config, "architectures": ["BertModel"]})
    with pytest.raises(ModelError, match=r"the model has no module 'encoder.layer.0.attention.self.query'"):
        check_layout(model, bare, "tiny")
    check_layout(model, base.layout, "tiny")
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.bias = None
    with pytest.raises(ModelError, match=r"layer.0.output.dense' has no bias; its family's table says one"):
        check_layout(model, base.layout, "tiny")


@pytest.fixture
def copied(model_folder: Folder, tmp_path: Path) -> Path:
    return shutil.copytree(model_folder("distilbert"), tmp_path / "model")


def test_a_folder_with_only_bin_weights_is_refused(copied: Path) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    base = BaseModel(copied)
    assert base.layout.paths
    for use in (base.load, lambda: base.fingerprint):
        with pytest.raises(ModelError, match=r"got only pytorch_model.bin; weights are read from safetensors only"):
            use()


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none: no such model folder \(`compose download`"):
        BaseModel(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file: is a file; a model folder is needed"):
        BaseModel(tmp_path / "file")
    with pytest.raises(ModelError, match=r"config.json: no such file"):
        _ = BaseModel(tmp_path).layout


@pytest.mark.parametrize(("content", "message"), [("{", "not valid JSON"), ("[]", "an object is needed")])
def test_a_damaged_configuration_is_refused(copied: Path, content: str, message: str) -> None:
    (copied / "config.json").write_text(content)
    with pytest.raises(ModelError, match=rf"config.json: .*{message}"):
        _ = BaseModel(copied).layout


def test_truncated_weights_are_refused(copied: Path) -> None:
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    for use in (BaseModel(copied).load, lambda: BaseModel(copied).fingerprint):
        with pytest.raises(ModelError, match=r"model.safetensors: truncated"):
            use()


def test_weights_without_a_target_are_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    gone = "distilbert.transformer.layer.1.attention.k_lin.weight"
    del weights[gone]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"no weights for '{gone}'"):
        BaseModel(copied).load()


def test_weights_of_other_sizes_than_the_configuration_are_refused(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "hidden_dim": 48}))
    with pytest.raises(ModelError, match=r"^[^\n]*config.json and the weights do not belong together[^\n]*$"):
        BaseModel(copied).load()
