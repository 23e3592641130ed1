"""Configurations of whole units: heads and neurons in numbers that smaller models can have."""

from __future__ import annotations

from typing import Any

import pytest

from composer.errors import ConfigError
from composer.models.layouts import layout_of
from composer.scheme.configurations import Configurations, Spec, resolve
from composer.scheme.generate import generate
from composer.scheme.layout import Layout

T5_CONFIG = {"model_type": "t5", "d_model": 12, "d_kv": 4, "d_ff": 100, "num_heads": 4, "num_layers": 2}
T5 = layout_of(T5_CONFIG)
BART = layout_of(
    {"model_type": "bart", "d_model": 12, "encoder_layers": 1, "decoder_layers": 1}
    | {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    | {"encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "architectures": ["BartForConditionalGeneration"]}
)
SELF, CROSS = "decoder.block.0.layer.0.SelfAttention", "decoder.block.0.layer.1.EncDecAttention"
UP = "encoder.block.1.layer.1.DenseReluDense.wi"


def kept(layout: Layout, one: dict[str, float | Spec]) -> dict[str, int]:
    """How many heads or neurons a configuration leaves, by target."""
    rates = {path: said.rate if isinstance(said, Spec) else said for path, said in one.items()}
    units = {path: layout.feed_forward(path) or layout.target(path) for path in rates}
    return {path: unit.heads - round(rates[path] * unit.heads) for path, unit in units.items()}


def test_heads_and_neurons_are_named_and_what_follows_them_is_not() -> None:
    (one,) = generate(T5, attention=[0.5], linear=[0.25], structured=True)
    assert [path.rpartition(".")[2] for path in one] == ["SelfAttention", "wi"] * 2 + [
        "SelfAttention",
        "EncDecAttention",
        "wi",
    ] * 2
    assert (one[SELF], one[UP]) == (0.5, Spec(rate=0.25, granularity="neuron"))


@pytest.mark.parametrize(
    ("multiple", "rate", "left"), [(8, 0.5, 48), (8, 0.99, 8), (8, 0.01, 96), (8, 1.0, 0), (8, 0.0, 100), (3, 0.3, 69)]
)
def test_kept_neurons_are_a_multiple(multiple: int, rate: float, left: int) -> None:
    (one,) = generate(T5, attention=[0.5], linear=[rate], multiple=multiple)
    assert kept(T5, one)[UP] == left
    assert kept(T5, one)[SELF] == 2  # heads are not counted in eights


def test_a_rate_below_one_leaves_a_head() -> None:
    some, none = generate(T5, attention=[0.99, 1.0], linear=[0.0], structured=True)
    assert (kept(T5, some)[SELF], kept(T5, none)[SELF]) == (1, 0)


def test_all_layers_keep_the_same_number_whatever_they_have() -> None:
    (one,) = generate(BART, attention=[0.5], linear=[0.1], uniform=True)
    assert {left for path, left in kept(BART, one).items() if path.endswith("fc1")} == {40}
    (one,) = generate(BART, attention=[0.5], linear=[0.5], uniform=True, multiple=16)
    assert {left for path, left in kept(BART, one).items() if path.endswith("fc1")} == {32}


def test_drawn_rates_are_one_for_all_layers() -> None:
    rates: dict[str, Any] = {"attention": [0.25, 0.5, 0.75], "linear": [0.2, 0.4, 0.6], "draws": 6}
    for one in generate(T5, **rates, uniform=True):
        assert len({left for path, left in kept(T5, one).items() if path.endswith("wi")}) == 1
    assert any(len(set(kept(T5, one).values())) > 2 for one in generate(T5, **rates, structured=True))


def test_where_a_position_bias_is_shared_heads_go_by_index() -> None:
    (one,) = generate(T5, attention=[0.5], linear=[0.5], uniform=True)
    assert (one[SELF], one[CROSS]) == (Spec(rate=0.5, granularity="stack-head"), 0.5)
    (one,) = generate(T5, attention=[0.5], linear=[0.5], structured=True, attention_granularity="stack-head")
    assert one[CROSS] == Spec(rate=0.5, granularity="stack-head")
    (one,) = generate(BART, attention=[0.5], linear=[0.5], uniform=True)
    assert {said for path, said in one.items() if path.endswith("attn")} == {0.5}


def test_heads_that_are_others_in_each_layer_have_no_common_index() -> None:
    """A shrunk T5 of exact shapes: as many heads in both layers, of those that share a position bias not the same."""
    second = SELF.replace("block.0", "block.1")
    by_index = Spec(rate=0.5, granularity="stack-head")
    given = Configurations(configurations=[{SELF: by_index}])

    def shrunk(*kept: int) -> Layout:
        shapes = {f"{path}.o": [12, 8] for path in (SELF, second)}
        heads = {SELF: [1, 2], second: list(kept)}
        return layout_of({**T5_CONFIG, "shrunk": {"linear": shapes, "heads": heads}})

    with pytest.raises(ConfigError, match=r"'stack-head': attentions .* have lost different heads; use 'head'"):
        resolve(given, shrunk(0, 3))
    assert resolve(given, shrunk(1, 2))[0][SELF] == by_index


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"granularity": "2:4"}, r"--granularity: got '2:4', .* allowed with --structured: neuron"),
        ({"attention_granularity": "row"}, r"--attention-granularity: got 'row', .*: head, stack-head"),
        ({"multiple": 0}, "--multiple: got 0; allowed: a whole number of at least 1"),
        ({"targets": ["*.wo"]}, "--structured: none of the 4 targets is an attention or begins a feed-forward"),
    ],
)
def test_what_has_no_whole_units_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        generate(T5, **options, structured=True)


def test_a_layer_or_sublayer_is_named_as_a_whole() -> None:
    given = Configurations(configurations=[{"encoder.block.1": 1, "decoder.block.0.layer.2": 1, "*.wi": 0.5}])
    (one,) = resolve(given, T5)
    neurons = Spec(rate=1.0, granularity="neuron")
    assert one["encoder.block.1.layer.0.SelfAttention"] == 1.0
    assert one[UP] == one["decoder.block.0.layer.2.DenseReluDense.wi"] == neurons
    assert one["encoder.block.0.layer.1.DenseReluDense.wi"] == 0.5
    assert not [path for path in one if path.endswith((".o", ".wo"))]


def test_a_layer_takes_no_other_rate() -> None:
    given = Configurations(configurations=[{"encoder.block.1": 0.5}])
    with pytest.raises(ConfigError, match=r"key 'encoder.block.1' names all that is inside.*; got 0.5; allowed: 1"):
        resolve(given, T5)
