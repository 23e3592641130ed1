"""Shrinking from the outside: folders that load everywhere and work in every step, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import composer
from composer.errors import ModelError, OutputError, RecipeError
from composer.models.folder import BaseModel
from composer.shrinking import verify
from composer.shrinking.shrink import shrink_into
from composer.shrinking.units import Units
from composer.shrinking.verify import Answers, answers, compared
from composer.steps import shrink as step
from tests.reference.zeroed import masked_folder

Folder = Callable[[str], Path]
RECIPE: dict[str, Any] = {"block": {"steps": 2}, "finetune": {"steps": 2, "batch_size": 4, "evaluations": 1}}


def some(i: int, units: Units) -> range:
    return range(i % 3, i % 3 + max(1, units.count // 2 - i % 2))


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh processes take seconds: two tests have them, the others compare here."""

    def here(masked: Path, small: Path) -> verify.Verification:
        return compared(answers(BaseModel(masked).load()), answers(BaseModel(small).load()))

    monkeypatch.setattr(verify, "verify", here)


def test_a_fresh_process_loads_exact_shapes_without_composer(model_folder: Folder, tmp_path: Path) -> None:
    masked = masked_folder(model_folder("t5"), tmp_path / "masked", some)
    done = composer.shrink(tmp_path / "masked")
    assert done.output == tmp_path / "masked-shrunk"
    assert done.summary["form"] == "exact"
    assert done.summary["verification"]["generated"] > 20
    loaded = composer.load(done.output)
    assert loaded.config.use_cache
    assert compared(answers(masked.load()), answers(loaded)).relative <= verify.TOLERANCE
    with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
        transformers.AutoModelForSeq2SeqLM.from_pretrained(done.output)
    assert not composer.shrink(tmp_path / "masked").fresh
    with pytest.raises(OutputError, match="exists and was made from other inputs"):
        composer.shrink(tmp_path / "masked", form="padded")


def test_the_whole_way_of_a_shrunk_model(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, unverified: None
) -> None:
    """Built small, fine-tuned dense, measured, asked, pruned and shrunk once more; a fine-tuned masked one too."""

    def recipe(model: Path, folder: Path) -> composer.Recipe:
        given = {"model": str(model), "data": str(classification_data), "folder": str(folder), **RECIPE}
        rates = {"attention": [0.5], "linear": [0.5], "structured": True}
        return composer.load_recipe(given=given | rates, file=False)

    def pruned(model: Path, folder: Path) -> tuple[composer.Recipe, dict[str, Any]]:
        work = recipe(model, folder)
        for do in (composer.generate_config, composer.generate_scheme, composer.prune):
            do(work)
        built = composer.build_model(work, 0, modules=folder / "modules" / "pruned", shrink="auto")
        assert built.output == folder / "models" / "0-shrunk"
        return work, built.summary["shrunk"]

    work, first = pruned(distilbert_folder, tmp_path / "a")
    small = tmp_path / "a" / "models" / "0-shrunk"
    again = recipe(small, tmp_path / "b")
    tuned = composer.finetune_model(again, "dense", None).output
    assert composer.load(tuned).get_parameter("distilbert.transformer.layer.0.ffn.lin1.weight").shape == (12, 16)
    [result] = composer.evaluate(again, [tuned]).summary["results"]
    assert result["sparsity"] == 0
    assert composer.predict(again, tuned, ["the old man"])[0].startswith(("positive", "negative"))
    _, second = pruned(tuned, tmp_path / "c")
    assert [row["units"] for row in second["rows"][:2]] == [{"before": 2, "after": 1}, {"before": 12, "after": 6}]
    assert first["parameters"]["after"] == second["parameters"]["before"] > second["parameters"]["after"]
    assert not re.search(r"\b4 of 4\b", (small / "README.md").read_text("utf-8"))
    whole = composer.finetune_model(work, "baseline", 0).output
    assert composer.shrink(whole, tmp_path / "tuned").summary["parameters"] == first["parameters"]


@pytest.mark.parametrize("name", ["distilbert", "bert", "gpt2"])
def test_heads_that_transformers_4_pruned_are_read(model_folder: Folder, tmp_path: Path, name: str) -> None:
    """Such a checkpoint has the smaller weights, and names the heads that are gone of each layer."""
    gone = {0: (1, 2), 1: (0,)}
    attentions = iter(gone.values())
    masked = masked_folder(
        model_folder(name), tmp_path / "m", lambda i, u: next(attentions) if u.kind == "attention" else (), biases=True
    )
    (tmp_path / "old").mkdir()
    shrink_into(tmp_path / "old", masked, "exact")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "old" / "modeling_shrunk.py").unlink()
    (tmp_path / "old" / "config.json").write_text(json.dumps({**config, "pruned_heads": {"0": [1, 2], "1": [0]}}))
    old = BaseModel(tmp_path / "old")
    assert compared(answers(masked.load()), answers(old.load())).relative <= verify.TOLERANCE
    assert [t.heads for t in old.layout.targets if t.kind == "attention"] == [2, 3]
    config["pruned_heads"] = {"0": [9]}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config.json: pruned_heads: 0: \[9\]: the model has no such layer or heads"):
        _ = BaseModel(tmp_path / "m").layout


def test_shapes_that_the_configuration_states_wrongly_are_refused(model_folder: Folder, tmp_path: Path) -> None:
    shutil.copytree(model_folder("distilbert"), tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    path = "distilbert.transformer.layer.0"
    for shrunk, words in (
        ([], "allowed: an object"),
        ({"heads": {f"{path}.attention": [2, 1]}}, "allowed: indices of heads"),
        ({"heads": {f"{path}.attention": [9]}}, "has 4 heads, no head 9"),
        ({"linear": {f"{path}.ffn.lin1": [99, 16]}}, "larger than without it"),
        ({"linear": {f"{path}.ffn.lin1": [9]}}, "allowed: two numbers"),
        ({"linear": {"lin1": [9, 9]}}, "the model has no 'lin1'"),
    ):
        (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "shrunk": shrunk or [1]}))
        with pytest.raises(ModelError, match=words):
            _ = BaseModel(tmp_path / "m").layout


def test_what_cannot_be_shrunk_is_refused_and_leaves_nothing(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unverified: None
) -> None:
    source = model_folder("distilbert")
    with pytest.raises(ModelError, match=r"nothing can be taken out: no weight .* is zero; prune it first"):
        composer.shrink(source, tmp_path / "out")
    single = BaseModel(source).load()
    for name, parameter in single.named_parameters():
        if ".layer." in name and parameter.dim() == 2:
            parameter.data.view(-1)[::5].zero_()
    (tmp_path / "single").mkdir()
    BaseModel(source).save(single, tmp_path / "single")
    with pytest.raises(ModelError, match="20 % of single weights are zero, no whole unit is; use `compose generate-"):
        composer.shrink(tmp_path / "single", tmp_path / "out")
    masked_folder(source, tmp_path / "masked", some)
    with pytest.raises(ModelError, match=r"--form plain: .*: DistilBERT: the number of heads divides the width"):
        composer.shrink(tmp_path / "masked", tmp_path / "out", "plain")
    with pytest.raises(RecipeError, match=r"--form: got 'exakt'; allowed: auto, .*; did you mean 'exact'"):
        composer.shrink(tmp_path / "masked", tmp_path / "out", "exakt")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="the model is read from there"):
        composer.shrink(tmp_path / "masked", tmp_path)
    with pytest.raises(ModelError, match="the family's table says what a DistilBERT consists of"):
        composer.shrink(tmp_path / "masked", tmp_path / "out", targets=["*lin1", "*lin2"])
    (tmp_path / "half").mkdir()
    shutil.copyfile(tmp_path / "masked" / "config.json", tmp_path / "half" / "config.json")
    with pytest.raises(ModelError, match=r"half: no model.safetensors; got none"):
        composer.shrink(tmp_path / "half", tmp_path / "out")
    monkeypatch.setattr(verify, "verify", lambda *_: compared(*_differing()))
    with pytest.raises(ModelError, match=r"logits differ by 0.5 of the largest; allowed: 0.0001"):
        composer.shrink(tmp_path / "masked", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _differing() -> tuple[Answers, Answers]:
    return Answers(torch.tensor([2.0]), {}), Answers(torch.tensor([1.0]), {})


def test_other_tokens_are_another_model() -> None:
    logits = torch.tensor([2.0])
    with pytest.raises(ModelError, match="beam search gives other tokens"):
        compared(Answers(logits, {"beam": [[1, 2]]}), Answers(logits, {"beam": [[1, 3]]}))
    with pytest.raises(ModelError, match="logits differ by nan"):
        compared(Answers(logits, {}), Answers(logits * torch.nan, {}))


def test_pairs_of_a_model_of_no_family_are_named(model_folder: Folder, tmp_path: Path, unverified: None) -> None:
    base = BaseModel(model_folder("bloom"))
    model = base.load()
    for i in range(2):
        up = model.get_submodule(f"transformer.h.{i}.mlp.dense_h_to_4h")
        for parameter in up.parameters():
            parameter.data[i : i + 9] = 0
    model.get_parameter("transformer.h.1.mlp.dense_4h_to_h.weight").data[:, 40:] = 0
    (tmp_path / "masked").mkdir()
    base.save(model, tmp_path / "masked")
    with pytest.raises(ModelError, match="no table says which heads and neurons a 'bloom' model has; name what"):
        composer.shrink(tmp_path / "masked")
    for globs, words in (
        (["*dense"], "two globs or more"),
        (["*none", "*4h_to_h"], r"'\*none' names no nn.Linear"),
        (["*self_attention.dense", "*4h_to_h"], "reads 64 columns, and .*dense has 16 rows"),
    ):
        with pytest.raises(ModelError, match=words):
            composer.shrink(tmp_path / "masked", targets=globs)
    done = composer.shrink(tmp_path / "masked", targets=["*dense_h_to_4h", "*dense_4h_to_h"])
    assert [row["units"]["after"] for row in done.summary["rows"]] == [55, 31]
    small = BaseModel(done.output)
    assert small.layout.target("transformer.h.1.mlp.dense_4h_to_h").projections[0].in_features == 31


def test_a_model_in_memory_is_shrunk(model_folder: Folder, tmp_path: Path, unverified: None) -> None:
    model = masked_folder(model_folder("gpt2"), tmp_path / "masked", some).load(cache=True)
    done = composer.shrink(model, tmp_path / "small", "exact")
    assert BaseModel(done.output).parameters == done.summary["parameters"]["after"]
    with pytest.raises(OutputError, match="a model in memory has no folder"):
        composer.shrink(model)
    assert step.SUFFIX == "-shrunk"
