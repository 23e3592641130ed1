"""Granularities by name: where they fit, what they count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.errors import ConfigError
from composer.models.layouts import layout_of
from composer.scheme.layout import Layout
from composer.scheme.shapes import KINDS, Shape, default_shape, parse_shape, rate_of

T5 = {"model_type": "t5", "d_model": 12, "d_kv": 4, "d_ff": 24, "num_heads": 4, "num_layers": 1}
ATTENTION = "encoder.block.0.layer.0.SelfAttention"
OUT = f"{ATTENTION}.o"
FORWARD = "encoder.block.0.layer.1.DenseReluDense"


@pytest.fixture(scope="module")
def layout() -> Layout:
    return layout_of({**T5, "feed_forward_proj": "gated-gelu"})


@pytest.mark.parametrize("name", ["unstructured", "per-row", "global", "row", "column", "head", "stack-head", "neuron"])
def test_names_are_read_and_written(name: str) -> None:
    assert parse_shape(name).kind == str(parse_shape(name)) == name


def test_patterns_are_read_and_written() -> None:
    assert parse_shape("2:4") == Shape("N:M", 2, 4)
    assert parse_shape("16x1") == Shape("RxC", 16, 1)
    assert [str(parse_shape(text)) for text in ("2:4", "16x1", "1:16")] == ["2:4", "16x1", "1:16"]
    assert {parse_shape(text).kind for text in ("2:4", "16x1")} < set(KINDS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rows", r"granularity: got 'rows'; allowed: unstructured, .* RxC \(4x4 blocks\); did you mean 'row'\?"),
        ("0:4", "granularity: got '0:4'; allowed: unstructured"),
        ("4x", "granularity: got '4x'"),
        ("", "granularity: got ''"),
        ("4:4", "granularity '4:4': keeps 4 of 4; allowed: N:M with N < M"),
    ],
)
def test_other_names_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_shape(text)


@pytest.mark.parametrize(
    ("name", "path", "rate", "removed"),
    [
        ("head", ATTENTION, 0.5, 2 * 4 * 12 * 3),
        ("unstructured", OUT, 0.3, round(0.3 * 192)),
        ("unstructured", ATTENTION, 0.3, 3 * round(0.3 * 192)),
        ("global", ATTENTION, 0.3, round(0.3 * 3 * 192)),
        ("per-row", OUT, 0.3, round(0.3 * 192)),
        ("2:4", OUT, 0.5, 96),
        ("1:4", ATTENTION, 0.75, 3 * 144),
        ("row", OUT, 0.3, round(0.3 * 12) * 16),
        ("column", OUT, 0.3, round(0.3 * 16) * 12),
        ("4x8", OUT, 0.5, 3 * 32),
        ("neuron", f"{FORWARD}.wi_0", 0.3, round(0.3 * 24) * 12 * 3),
    ],
)
def test_counts(layout: Layout, name: str, path: str, rate: float, removed: int) -> None:
    shape = parse_shape(name)
    assert shape.problem(layout, path, rate) is None
    assert shape.removed_weights(layout, path, rate) == removed


@pytest.mark.parametrize(
    ("name", "path", "rate", "problem"),
    [
        ("head", OUT, 0.5, "granularity 'head' is for attention targets; this is a linear one"),
        ("neuron", OUT, 0.5, "granularity 'neuron' is for the first projection of a feed-forward"),
        ("neuron", f"{FORWARD}.wo", 0.5, "a gate and the second follow it"),
        ("neuron", f"{FORWARD}.wi_1", 0.5, "a gate and the second follow it"),
        ("neuron", ATTENTION, 0.5, "granularity 'neuron' is for the first projection"),
        ("2:4", OUT, 0.4, "granularity '2:4' keeps 2 of 4: the rate must be 0.5"),
        ("4:8", f"{FORWARD}.wi_0", 0.5, f"8 does not divide the input dimension of {FORWARD}.wi_0, 12"),
        ("4:8", ATTENTION, 0.5, f"8 does not divide the input dimension of {ATTENTION}.q, 12"),
        ("5x4", OUT, 0.5, f"granularity '5x4': 5 does not divide the output dimension of {OUT}, 12"),
        ("4x5", OUT, 0.5, f"granularity '4x5': 5 does not divide the input dimension of {OUT}, 16"),
    ],
)
def test_what_does_not_fit_is_said(layout: Layout, name: str, path: str, rate: float, problem: str) -> None:
    assert problem in (parse_shape(name).problem(layout, path, rate) or "")


def test_a_rate_alone_means_heads_and_single_weights(layout: Layout) -> None:
    assert str(default_shape(layout.target(ATTENTION))) == "head"
    assert str(default_shape(layout.target(OUT))) == "unstructured"


def test_a_feed_forward_begins_at_its_first_projection(layout: Layout) -> None:
    whole = layout.feed_forward(f"{FORWARD}.wi_0")
    assert whole is not None
    assert [p.path for p in whole.projections] == [f"{FORWARD}.{name}" for name in ("wi_0", "wi_1", "wo")]
    assert (whole.heads, whole.units, whole.parameters) == (24, 24, 3 * 12 * 24)
    assert {layout.feed_forward(path) for path in layout.paths if not path.endswith("wi_0")} == {None}


@given(st.integers(1, 5000), st.data())
def test_a_rate_stands_for_its_count(units: int, data: st.DataObject) -> None:
    removed = data.draw(st.integers(0, units))
    rate = rate_of(removed, units)
    assert 0 <= rate <= 1
    assert round(rate * units) == removed
