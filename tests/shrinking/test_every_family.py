"""A shrunk model of every family is the masked one: the same logits and tokens, and parameters gone as counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from composer.models.folder import BaseModel
from composer.shrinking import verify
from composer.shrinking.in_memory import SmallModels
from composer.shrinking.records import Report
from composer.shrinking.shrink import Asked, shrink_into
from composer.shrinking.units import Units
from composer.shrinking.verify import Answers, answers, compared
from tests.reference.zeroed import Choose, masked_folder
from tests.zoo import ZOO

Folder = Callable[[str], Path]
Masked = Callable[[str, str], tuple[BaseModel, Answers]]

TABLES = ("t5", "gated", "mt5", "distilbert", "bert", *ZOO)
GROUPED = ("mistral", "qwen2", "qwen3")
HEADS_STATED = ("t5", "gated", "mt5", *GROUPED)


def some(i: int, units: Units) -> Sequence[int]:
    """Another number of units of each."""
    return range(i % 3, i % 3 + max(1, units.count // 2 - i % 2))


def wholes(i: int, units: Units) -> Sequence[int]:
    """All of the first attention, of the second feed-forward, and of the last layer."""
    last = units.layer.endswith(".1") and not units.layer.startswith("encoder.block")
    return range(units.count) if i in (0, 3) or last else ()


def alike(i: int, units: Units) -> Sequence[int]:
    """As many neurons everywhere, and the same heads."""
    return (1,) if units.kind == "attention" else range(i, i + 8)


def neurons(i: int, units: Units) -> Sequence[int]:
    """As many neurons everywhere."""
    return () if units.kind == "attention" else range(i, i + 8)


def a_layer(i: int, units: Units) -> Sequence[int]:
    """All of the first layer of the last stack."""
    decodes = units.last.stream == "decoder"
    return range(units.count) if units.layer.endswith(".0") and (decodes or i < 2) else ()


def an_encoder_layer(i: int, units: Units) -> Sequence[int]:
    """All of the encoder's first layer, and nothing of the decoder."""
    return range(units.count) if i < 2 else ()


CHOICES: dict[str, Choose] = {f.__name__: f for f in (some, wholes, alike, neurons, a_layer, an_encoder_layer)}


@pytest.fixture(scope="module")
def masked(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Masked:
    """Makes (once) a masked model of a family, and what it answers."""
    made: dict[tuple[str, str], tuple[BaseModel, Answers]] = {}

    def make(name: str, choice: str) -> tuple[BaseModel, Answers]:
        if (name, choice) not in made:
            folder = tmp_path_factory.mktemp("masked") / name
            # Of some the biases stay, and what goes leaves constants.
            base = masked_folder(
                model_folder(name), folder, CHOICES[choice], biases=name not in ("bart", "gpt2", "bert")
            )
            made[name, choice] = base, answers(base.load())
        return made[name, choice]

    return make


@pytest.fixture(autouse=True)
def _few_tokens(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Beam search, which reorders the cache too, where attentions are gone or heads differ; else logits alone."""
    case = getattr(request.node, "callspec", None)
    searched = case is None or case.params["choice"] in ("some", "wholes", "a_layer", "an_encoder_layer")
    monkeypatch.setattr(verify, "NEW", 4)
    monkeypatch.setattr(verify, "TEXTS", 2)
    monkeypatch.setattr(verify, "SEARCHES", {"beam": 2} if searched else {})


def shrunk(masked: Masked, tmp_path: Path, name: str, choice: str, asked: Asked) -> tuple[Report, BaseModel]:
    base, before = masked(name, choice)
    report = shrink_into(tmp_path, base, asked)
    small = BaseModel(tmp_path)
    compared_with = before if verify.SEARCHES else replace(before, generated={})
    assert compared(compared_with, answers(small.load())).relative <= verify.TOLERANCE
    assert small.parameters == report.parameters.after < report.parameters.before == base.parameters
    return report, small


@pytest.mark.parametrize("choice", ["some", "wholes"])
@pytest.mark.parametrize("name", TABLES)
def test_an_exact_model_is_the_masked_one(masked: Masked, tmp_path: Path, name: str, choice: str) -> None:
    _, small = shrunk(masked, tmp_path, name, choice, "exact")
    (tmp_path / "again").mkdir()
    small.save(small.load(), tmp_path / "again")
    assert BaseModel(tmp_path / "again").fingerprint == small.fingerprint


@pytest.mark.parametrize(
    ("name", "choice"), [*((name, "some") for name in TABLES), ("t5", "wholes"), ("opt", "wholes")]
)
def test_a_small_model_in_memory_answers_as_the_masked_one_and_leaves_the_base_model_alone(
    masked: Masked, model_folder: Folder, name: str, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked_base, wanted = masked(name, choice)
    monkeypatch.setattr(verify, "SEARCHES", {})
    base = BaseModel(model_folder(name))
    model, weights = base.load(), dict(masked_base.load().named_parameters())
    before = answers(model).logits
    small = SmallModels(model, base).made(weights)
    assert small is not None
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert compared(replace(wanted, generated={}), answers(small)).relative <= verify.TOLERANCE
    assert torch.equal(answers(model).logits, before)
    assert SmallModels(model, base).made({name: p.detach() for name, p in model.named_parameters()}) is None


@pytest.mark.parametrize("choice", ["alike", "padded"])
@pytest.mark.parametrize("name", TABLES)
def test_a_plain_model_is_the_masked_one(masked: Masked, tmp_path: Path, name: str, choice: str) -> None:
    if choice == "padded":
        report, small = shrunk(masked, tmp_path, name, "some", "padded")
    else:
        report, small = shrunk(masked, tmp_path, name, "alike" if name in HEADS_STATED else "neurons", "auto")
    assert report.form == ("padded" if choice == "padded" else "plain")
    assert "shrunk" not in small.config
    assert not (tmp_path / "modeling_shrunk.py").exists()
    assert isinstance(small.load(), getattr(transformers, small.config["architectures"][0]))


@pytest.mark.parametrize("choice", ["a_layer"])
@pytest.mark.parametrize("name", ["t5", "pegasus", "gpt2", "opt", "llama", "qwen3", "bert"])
def test_a_whole_layer_goes_where_nothing_is_left_of_it(masked: Masked, tmp_path: Path, name: str, choice: str) -> None:
    """Without biases: it adds nothing. With them: it is the first, and what it adds has no bias to go to."""
    report, small = shrunk(masked, tmp_path, name, choice, "auto")
    layers = len(list(small.layout.at("layer")))
    assert (report.form, bool(report.dropped)) == (("plain", True) if name in ("t5", "qwen3") else ("exact", False))
    assert layers == len(list(BaseModel(masked(name, choice)[0].folder).layout.at("layer"))) - len(
        {row.layer for row in report.rows if not row.units.after}
    )


@pytest.mark.parametrize("choice", ["an_encoder_layer"])
def test_an_encoder_that_would_be_shallower_than_its_decoder_keeps_an_empty_layer(
    masked: Masked, tmp_path: Path, choice: str
) -> None:
    """Else transformers makes too small a cache for a T5, and nothing can be generated."""
    report, _ = shrunk(masked, tmp_path, "t5", choice, "auto")
    assert (report.form, report.dropped) == ("exact", ())


def test_a_llama_whose_heads_do_not_divide_its_width_is_saved_as_a_mistral(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 8}
    config = transformers.LlamaConfig(vocab_size=32, num_key_value_heads=4, **sizes, pad_token_id=0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    base = masked_folder(tmp_path / "llama", tmp_path / "masked", alike)
    (tmp_path / "small").mkdir()
    report = shrink_into(tmp_path / "small", base, "auto")
    small = BaseModel(tmp_path / "small")
    assert report.why.endswith("as a mistral: the same function, and any number of heads")
    assert isinstance(small.load(), transformers.MistralForCausalLM)
    assert (small.config["num_attention_heads"], small.config["num_key_value_heads"]) == (6, 3)
    assert compared(answers(base.load()), answers(small.load())).relative <= verify.TOLERANCE
