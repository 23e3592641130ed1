"""A stranger's model the whole way: legacy-seq2seq, of which nothing in composer knows more than its entry points."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import composer
from composer.demo.corpus import pairs
from composer.models.families import FAMILIES
from composer.models.folder import BaseModel
from composer.tasks import TASKS
from composer.tensors.capture import recording
from composer.tensors.masks import zeros_per_target

HEADS = 4
RATES = ({"attention": 0.25, "linear": 0.3}, {"attention": 0.5, "linear": 0.7})
SOURCES, TARGETS = torch.tensor([[2, 7, 8, 9, 3], [2, 6, 3, 1, 1]]), torch.tensor([[2, 9, 5], [2, 4, 1]])
WAYS = {
    "obs": {"criterion": "obs", "trainer": "least_squares"},
    "l1": {"criterion": "l1", "trainer": "distill"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the embedded corpus, German and English."""
    folder = tmp_path_factory.mktemp("data")
    for name, split, size in (("train", "train", 160), ("val", "valid", 16), ("test", "test", 8)):
        for i, language in enumerate(("en", "de")):
            text = "".join(f"{pair[i]}\n" for pair in pairs(split)[:size])
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(legacy_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one layer on each side, trained for seconds by its own package."""
    from legacy_seq2seq.config import Config
    from legacy_seq2seq.data import encode, vocabularies
    from legacy_seq2seq.training import Epoch, Settings, train

    folder = tmp_path_factory.mktemp("legacy") / "base"
    training, validation = ([(german, english) for english, german in pairs(of)] for of in ("train", "valid"))
    words = vocabularies(training[:160])
    sizes = {"d_model": 16, "heads": HEADS, "encoder_layers": 1, "decoder_layers": 1, "d_ff": 24, "max_length": 32}
    config = Config(len(words.source), len(words.target), **sizes)
    epochs: list[Epoch] = []
    train(
        config,
        words,
        encode(training[:160], words, 32),
        encode(validation[:16], words, 32),
        folder,
        Settings(epochs=3, batch_size=16),
        on_epoch=epochs.append,
    )
    assert epochs[-1].validation_loss < epochs[0].validation_loss
    return folder


@pytest.fixture(scope="module", params=WAYS)
def made(request: pytest.FixtureRequest, trained: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole way, in a folder."""
    folder = tmp_path_factory.mktemp("way")
    given: dict[str, Any] = {
        "model": str(trained),
        "data": str(data),
        "folder": str(folder),
        "attention": [rates["attention"] for rates in RATES],
        "linear": [rates["linear"] for rates in RATES],
        "block_levels": ["module", "sublayer", "layer"],
        "block": {"steps": 2, "batch_size": 8},
        "calibration_size": 32,
        "max_target_length": 16,
        **WAYS[request.param],
    }
    recipe = composer.load_recipe(given=given, file=False)
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    composer.finetune_blocks(recipe)
    for i in range(len(RATES)):
        composer.build_model(recipe, i)
    composer.evaluate(recipe, [folder / "models" / "1"])
    return folder


def test_its_entry_points_are_rows_of_the_registries(legacy_package: Path) -> None:
    assert "legacy" in FAMILIES.names()
    assert "legacy_translation" in TASKS.names()


@pytest.mark.parametrize("i", range(len(RATES)))
def test_every_target_has_exactly_the_planned_zeros(made: Path, i: int) -> None:
    composed = BaseModel(made / "models" / str(i))
    wanted = {}
    for target in composed.layout.targets:
        rate, size = RATES[i]["attention" if target.kind == "attention" else "linear"], target.parameters
        wanted[target.path] = (round(rate * HEADS) * size // HEADS if target.heads else round(rate * size), size)
    assert len(wanted) == 4 + 6
    assert zeros_per_target(composed.load(), composed.layout) == wanted


def test_removed_heads_are_whole_in_the_packed_weight_and_its_bias(made: Path) -> None:
    parameters = dict(BaseModel(made / "models" / "1").load().named_parameters())
    packed = [name for name in parameters if name.endswith("in_proj_weight")]
    assert len(packed) == 3
    for name in packed:
        by_head = parameters[name].detach().unflatten(0, (3, HEADS, -1))
        gone = (by_head == 0).flatten(2).all(-1)
        assert gone.sum(-1).tolist() == [2, 2, 2]
        assert (gone == gone[0]).all(), "query, key and value lose the same heads"
        bias = parameters[name.replace("weight", "bias")].detach().unflatten(0, (3, HEADS, -1))
        assert (bias[gone] == 0).all()


@pytest.mark.parametrize("i", range(len(RATES)))
def test_the_composed_folder_is_a_model_of_the_package_itself(
    made: Path, i: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from legacy_seq2seq.__main__ import main
    from legacy_seq2seq.decoding import greedy
    from legacy_seq2seq.model import Seq2Seq
    from legacy_seq2seq.vocabulary import Vocabularies

    folder = made / "models" / str(i)
    own, watched = Seq2Seq.load(folder), BaseModel(folder).load()
    kinds = [type(module) for module in own.modules()]
    assert kinds.count(nn.MultiheadAttention) == 3, "torch's own attention, not the adapter's"
    with torch.no_grad():
        assert (own(SOURCES, TARGETS) - watched(SOURCES, TARGETS)).abs().max() < 1e-5
    words = Vocabularies.load(folder)
    assert isinstance(words.decode_target(greedy(own, SOURCES, 8)[0]), str)
    assert main(["translate", str(folder), "der Mann .", "--beams", "2"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_it_was_measured_as_translation(made: Path, trained: Path) -> None:
    result = json.loads((made / "results" / "1.json").read_text())["result"]
    composed = BaseModel(made / "models" / "1")
    counts = zeros_per_target(composed.load(), composed.layout).values()
    assert result["sparsity"] == pytest.approx(sum(z for z, _ in counts) / sum(n for _, n in counts), abs=1e-12)
    assert 0 < result["loss"] < 10


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_what_is_captured_before_the_out_projection_explains_the_attention(trained: Path, side: str) -> None:
    """``nn.MultiheadAttention`` never calls its out-projection; what the adapter lets hooks see must still be that."""
    from legacy_seq2seq.model import Seq2Seq

    base = BaseModel(trained)
    watched, own = base.load(), Seq2Seq.load(trained)
    name = "self_attn" if side == "encoder" else "multihead_attn"
    path = f"transformer.{side}.layers.0.{name}"
    (block,) = (b for b in base.layout.blocks if b.level == "module" and b.path == f"{path}.out_proj")
    seen: list[torch.Tensor] = []
    attention = own.get_submodule(path)
    hook = attention.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    with torch.no_grad(), recording(watched, [block]) as record, record.listening():
        watched(SOURCES, TARGETS)
    with torch.no_grad():
        own(SOURCES, TARGETS)
    hook.remove()
    (arguments, _), result = record.of(block)
    out = attention.get_submodule("out_proj")
    real = (SOURCES if side == "encoder" else TARGETS) != 1
    again = (arguments[0] @ out.weight.T + out.bias)[real]
    assert (again - seen[0][real]).abs().max() < 1e-5
    assert (result[real] - again).abs().max() < 1e-5


def test_a_wish_for_lengths_that_it_has_no_positions_for_is_refused(trained: Path, data: Path, tmp_path: Path) -> None:
    given = {"model": str(trained), "data": str(data), "folder": str(tmp_path), "max_source_length": 33}
    recipe = composer.load_recipe(given=given, file=False)
    with pytest.raises(composer.InputError, match="max_source_length: got 33; allowed for this model: 3 to 32"):
        composer.evaluate(recipe, [trained])


def test_its_version_is_in_every_record(made: Path) -> None:
    for file in ("results/1.json", "models/1/composer.json"):
        assert json.loads((made / file).read_text())["versions"]["legacy-seq2seq"] == version("legacy-seq2seq")
