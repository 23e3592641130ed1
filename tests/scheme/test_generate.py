"""Configurations made from lists of rates."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.errors import ConfigError
from composer.models.layouts import layout_of
from composer.scheme.configurations import Spec
from composer.scheme.generate import DEFAULT_ATTENTION, DEFAULT_LINEAR, generate
from composer.scheme.layout import Layout

DISTILBERT = {
    "model_type": "distilbert",
    "architectures": ["DistilBertForSequenceClassification"],
    "dim": 8,
    "hidden_dim": 16,
    "n_heads": 4,
    "n_layers": 2,
}
LAYOUT = layout_of(DISTILBERT)
ATTENTION = [t.path for t in LAYOUT.targets if t.kind == "attention"]
LINEAR = [t.path for t in LAYOUT.targets if t.kind == "linear"]

Rates = st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4)


@pytest.fixture
def layout() -> Layout:
    return LAYOUT


def by_kind(configuration: dict[str, float]) -> tuple[set[float], set[float]]:
    """Rates of the attention targets and of the linear ones."""
    return {configuration[t] for t in ATTENTION}, {configuration[t] for t in LINEAR}


def test_configuration_i_takes_the_i_th_rates(layout: Layout) -> None:
    made = generate(layout, attention=[0.25, 0.5, 0.25], linear=[0.3, 0.3, 0.5])
    assert [by_kind(c) for c in made] == [({0.25}, {0.3}), ({0.5}, {0.3}), ({0.25}, {0.5})]


def test_every_target_is_named_in_execution_order(layout: Layout) -> None:
    assert [list(c) for c in generate(layout)] == [list(layout.paths)] * 3


def test_the_documented_lists_are_the_defaults(layout: Layout) -> None:
    assert (DEFAULT_ATTENTION, DEFAULT_LINEAR) == ((0.25, 0.5, 0.25), (0.3, 0.3, 0.5))
    assert generate(layout) == generate(layout, attention=[0.25, 0.5, 0.25], linear=[0.3, 0.3, 0.5])


def test_a_single_value_is_repeated(layout: Layout) -> None:
    assert [by_kind(c) for c in generate(layout, attention=[0.5], linear=[0.1, 0.2])] == [
        ({0.5}, {0.1}),
        ({0.5}, {0.2}),
    ]
    assert [by_kind(c) for c in generate(layout, attention=[0.5], linear=[0.1], count=3)] == [({0.5}, {0.1})] * 3


@pytest.mark.parametrize(
    ("given_lists", "problems"),
    [
        (
            {"attention": [0.1, 0.2], "linear": [0.1, 0.2, 0.3]},
            ["--attention: got 2 rates for 3 configurations; allowed: 1 or 3"],
        ),
        (
            {"attention": [0.1, 0.2], "linear": [0.1, 0.2, 0.3], "count": 4},
            [
                "--attention: got 2 rates for 4 configurations; allowed: 1 or 4",
                "--linear: got 3 rates for 4 configurations; allowed: 1 or 4",
            ],
        ),
        (
            {"attention": [0.1, 0.2], "linear": [0.1], "count": 1},
            ["--attention: got 2 rates for 1 configurations; allowed: 1 or 1"],
        ),
        ({"count": 0}, ["--count: got 0; allowed: a whole number of at least 1"]),
        ({"draws": 0}, ["--random: got 0; allowed: a whole number of at least 1"]),
        (
            {"linear": []},
            ["--linear: got an empty list; allowed: one or more rates, each a number with 0 <= rate <= 1"],
        ),
        ({"attention": [0.5, 1.5]}, ["--attention[1]: got 1.5; allowed: a number with 0 <= rate <= 1"]),
    ],
)
def test_lists_that_do_not_fit_are_refused(layout: Layout, given_lists: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        generate(layout, **given_lists)
    assert list(caught.value.problems) == problems


def test_bad_values_of_both_lists_are_reported_at_once(layout: Layout) -> None:
    with pytest.raises(ConfigError) as caught:
        generate(layout, attention=[1.5], linear=[-1.0])
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["--attention[0]", "--linear[0]"]


@given(Rates, Rates)
def test_a_grid_is_every_combination_in_order(attention: list[float], linear: list[float]) -> None:
    made = generate(LAYOUT, attention=attention, linear=linear, grid=True)
    assert [by_kind(c) for c in made] == [({a}, {b}) for a, b in product(attention, linear)]


@given(Rates, Rates, st.integers(1, 5), st.integers(0, 2**32))
def test_random_draws_come_from_the_lists_and_from_the_seed(
    attention: list[float], linear: list[float], draws: int, seed: int
) -> None:
    made = generate(LAYOUT, attention=attention, linear=linear, draws=draws, seed=seed)

    assert len(made) == draws
    assert made == generate(LAYOUT, attention=attention, linear=linear, draws=draws, seed=seed)
    for configuration in made:
        assert list(configuration) == list(LAYOUT.paths)
        assert by_kind(configuration)[0] <= set(attention)
        assert by_kind(configuration)[1] <= set(linear)


def test_other_seeds_draw_other_rates(layout: Layout) -> None:
    drawn = [generate(layout, draws=1, seed=seed, attention=[0.1, 0.2], linear=[0.1, 0.2]) for seed in range(20)]
    assert len({str(d) for d in drawn}) > 10
    values = {rate for (configuration,) in drawn for rate in configuration.values()}
    assert values == {0.1, 0.2}


@pytest.mark.parametrize("how", [{}, {"grid": True}, {"draws": 2}])
def test_only_the_targets_that_globs_name_stand_in_the_configurations(layout: Layout, how: dict[str, Any]) -> None:
    globs = ["*.layer.0.ffn.*", "*.layer.1.attention"]
    wanted = [p for p in layout.paths if ".layer.0.ffn." in p or p.endswith(".layer.1.attention")]
    assert len(wanted) == 3
    assert all(list(c) == wanted for c in generate(layout, targets=globs, **how))


def test_a_glob_that_names_no_target_is_refused(layout: Layout) -> None:
    with pytest.raises(ConfigError, match=r"--targets: '\*\.SelfAttention' matches no target of this DistilBERT model"):
        generate(layout, targets=["*.ffn.*", "*.SelfAttention"])


@pytest.mark.parametrize("name", ["unstructured", "per-row", "global", "row", "column", "2:4", "4x2"])
@pytest.mark.parametrize("linear", [None, "4:8"])
def test_attention_in_a_shape_of_its_own(layout: Layout, name: str, linear: str | None) -> None:
    rates = {"attention": [0.5, 0.0], "linear": [0.5]}
    first, second = generate(layout, **rates, granularity=linear, attention_granularity=name)
    for path, said in first.items():
        shape = name if path in ATTENTION else linear
        assert said == (Spec(rate=0.5, granularity=shape) if shape else 0.5)
    assert list(first) == list(layout.paths)
    assert {second[path] for path in ATTENTION} == {0.0}


def test_heads_are_what_attention_loses_anyway(layout: Layout) -> None:
    assert generate(layout, attention_granularity="head") == generate(layout)


def test_shapes_that_do_not_fit_attention_are_refused_under_its_flag(layout: Layout) -> None:
    for name, problem in {
        "3:5": r"\.attention: granularity '3:5'.* must be 0.4; got 0.25",
        "3x1": r"\.attention: granularity '3x1': 3 does not divide the output dimension of .*q_lin, 8; got 0.25",
        "neuron": "got 'neuron', a shape of feed-forwards; allowed: a shape of attention targets",
        "heads": "got 'heads'; allowed: .*; did you mean 'head'",
    }.items():
        with pytest.raises(ConfigError, match=f"^--attention-granularity: .*{problem}"):
            generate(layout, attention_granularity=name)
    with pytest.raises(ConfigError, match=r"^--granularity: .*5 does not divide .*\n.*--attention-granularity: "):
        generate(
            layout,
            attention=[0.5],
            linear=[0.5],
            granularity="5x1",
            attention_granularity="3x1",
            targets=["*.0.attention", "*.0.ffn.lin1"],
        )
