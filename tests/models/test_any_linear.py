"""Models of no family's table: every nn.Linear is a target, and the user says which are pruned."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from composer.cli.app import call
from composer.errors import ConfigError, ModelError, SchemeError
from composer.models.folder import BaseModel
from composer.models.layouts import layout_of
from composer.recipe import Recipe
from composer.scheme.generate import generate
from composer.steps.configure import generate_config, generate_scheme
from composer.tasks import DataOptions, open_task
from tests.conftest import make_folder
from tests.reference.events import HANGING
from tests.reference.moments import collect
from tests.zoo import ZOO, make_config

Folder = Callable[[str], Path]


def config_of(architecture: str, **settings: Any) -> dict[str, Any]:
    return make_config(architecture, settings, 40).to_dict() | {"architectures": [architecture]}


def test_targets_are_the_linear_modules_of_the_real_model(model_folder: Folder) -> None:
    base = BaseModel(model_folder("gptj"))
    real = {p: m for p, m in base.load().named_modules() if isinstance(m, nn.Linear)}
    assert list(base.layout.paths) == list(real)
    assert "lm_head" in real
    assert not base.layout.listed
    for target in base.layout.targets:
        (projection,) = target.projections
        module = real[target.path]
        assert (target.kind, target.path, projection.stream) == ("linear", projection.path, "decoder")
        assert projection.stored == tuple(module.weight.shape)
        assert projection.bias == (module.bias is not None)
    assert [(b.level, b.path) for b in base.layout.blocks] == [("module", p) for p in real]


def test_a_weight_that_is_tied_to_another_is_no_target(model_folder: Folder) -> None:
    base = BaseModel(model_folder("bloom"))
    assert "lm_head" in dict(base.load().named_modules())
    assert len(base.layout.targets) == 8
    assert "lm_head" not in base.layout


def test_cross_attention_reads_the_encoders_tokens() -> None:
    layout = layout_of(config_of("UMT5ForConditionalGeneration", d_model=8, d_kv=2, d_ff=8, num_layers=1, num_heads=4))
    streams = {t.path: t.projections[0].stream for t in layout.targets}
    cross = "decoder.block.0.layer.1.EncDecAttention"
    assert [streams[f"{cross}.{name}"] for name in "qkvo"] == ["decoder", "encoder", "encoder", "decoder"]
    assert {s for p, s in streams.items() if p.startswith("encoder.")} == {"encoder"}
    assert {s for p, s in streams.items() if p.startswith("decoder.") and cross not in p} == {"decoder"}


def test_a_model_without_such_modules_is_refused() -> None:
    config = config_of("OpenAIGPTLMHeadModel", n_embd=8, n_layer=1, n_head=2)
    with pytest.raises(
        ModelError, match=r"^x: no table for model_type 'openai-gpt', and OpenAIGPTLMHeadModel has no nn.Linear of its"
    ):
        layout_of(config, "x")


def test_a_configuration_that_makes_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^x: transformers cannot make this model: [^\n]+$"):
        layout_of(config_of("GPTJForCausalLM", n_embd=10, n_layer=1, n_head=4), "x")


def test_pruning_it_without_a_word_about_what_is_an_error(model_folder: Folder) -> None:
    layout = BaseModel(model_folder("gptj")).layout
    with pytest.raises(
        ConfigError,
        match=r"^--targets: nothing given; no table for gptj models, .* 'transformer\.h\.\*\.attn\.k_proj'",
    ):
        generate(layout)
    with pytest.raises(ConfigError, match="matches no target of this gptj model"):
        generate(layout, targets=["*.c_attn"])
    assert set(generate(layout, linear=[0.5], attention=[0], targets=["*.mlp.*", "lm_head"])[0]) == {
        "lm_head",
        *(f"transformer.h.{i}.mlp.{name}" for i in (0, 1) for name in ("fc_in", "fc_out")),
    }


def test_the_documented_command_works(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("compose generate-config"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "gptj").symlink_to(model_folder("gptj"))
    assert call(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    told = json.loads((tmp_path / "conf.json").read_text())["configurations"]
    assert [set(one.values()) for one in told] == [{0.3}, {0.5}]


def test_configurations_and_scheme_are_made_of_the_named_targets(model_folder: Folder, tmp_path: Path) -> None:
    recipe = Recipe(model=str(model_folder("bloom")), folder=tmp_path, targets=["*.mlp.*"], linear=[0.25, 0.5])
    recipe = recipe.model_copy(update={"attention": [0.0]})
    generate_config(recipe)
    generate_scheme(recipe)
    nodes = json.loads((tmp_path / "conf_prune.json").read_text())["nodes"]
    assert [n["level"] for n in nodes].count("module") == 8
    assert {n["level"] for n in nodes} == {"module", "model"}
    assert all("mlp" in n["path"] for n in nodes if n["level"] == "module")
    with pytest.raises(SchemeError, match=r"^--block-levels: got sublayer; allowed for this bloom model: module$"):
        generate_scheme(recipe.model_copy(update={"block_levels": ["sublayer"]}))


def test_moments_are_only_gathered_where_there_is_a_row_for_each_token(
    tmp_path: Path, classification_data: Path
) -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24, "num_hidden_layers": 2}
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    given = make_config("AlbertForSequenceClassification", {**sizes, **labels, "pad_token_id": 0}, 35)
    base = BaseModel(make_folder(tmp_path, "AlbertForSequenceClassification", given, "[CLS] $A [SEP]"))
    task = open_task(DataOptions(data=str(classification_data)), base.folder, base.config)
    model, data = base.load(), task.load("valid")
    inner = [p for p in base.layout.paths if ".ffn" in p or ".attention." in p]
    assert set(collect(model, task, data, base.layout.only(inner))) == set(inner)
    with pytest.raises(ModelError, match=r"albert.pooler: works on a tensor of shape \(8, 16\), which has no row"):
        collect(model, task, data, base.layout.only(["albert.pooler"]))


def test_the_known_families_need_no_torch() -> None:
    known = [make_config(a, s, 40).to_dict() | {"architectures": [a]} for a, s in ZOO.values()]
    code = (
        "import json, sys; from composer.models.layouts import layout_of; "
        "[layout_of(c) for c in json.load(sys.stdin)]; print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(known),
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
