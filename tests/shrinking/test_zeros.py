"""Which units can go: what is left computes the same, for any pattern of zero rows, columns and biases."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from composer.scheme.layout import Projection
from composer.shrinking.units import Units
from composer.shrinking.zeros import find

WIDTH, COUNT, SIZE = 5, 6, 2
ZEROED = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT)
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "sigmoid": torch.sigmoid}


def units(kind: str, first: int, *, bias: bool, last_bias: bool) -> Units:
    size = SIZE if kind == "attention" else 1
    projections = [Projection(f"{i}", COUNT * size, WIDTH, bias, "encoder") for i in range(first)]
    last = Projection("last", WIDTH, COUNT * size, last_bias, "encoder")
    return Units(kind, "u", "layer", COUNT, 1, tuple(projections), last)  # type: ignore[arg-type]


def parameters(of: Units, rows: list[list[bool]], columns: list[bool], biases: list[bool]) -> dict[str, Tensor]:
    """Random parameters with these units' rows, columns and biases zero."""
    draw = torch.Generator().manual_seed(0)
    made = {name: torch.randn(p.stored, generator=draw) for p in of.projections for name in p.parameters[:1]}
    made |= {p.bias_name: torch.randn(p.out_features, generator=draw) for p in of.projections if p.bias_name}
    for p, gone in zip(of.first, rows, strict=False):
        for unit in range(COUNT):
            lines = slice(unit * of.rows(p), (unit + 1) * of.rows(p))
            if gone[unit]:
                made[p.weight][lines] = 0
            if p.bias_name and biases[unit]:
                made[p.bias_name][lines] = 0
    for unit in range(COUNT):
        if columns[unit]:
            made[of.last.weight][:, unit * of.columns : (unit + 1) * of.columns] = 0
    return made


def projected(values: dict[str, Tensor], p: Projection, x: Tensor) -> Tensor:
    return F.linear(x, values[p.weight], values[p.bias_name] if p.bias_name else None)


@given(
    rows=st.lists(ZEROED, min_size=2, max_size=2),
    columns=ZEROED,
    biases=ZEROED,
    gated=st.booleans(),
    bias=st.booleans(),
    last_bias=st.booleans(),
    name=st.sampled_from(sorted(ACTIVATIONS)),
)
def test_neurons_that_go_leave_the_same_function(
    rows: list[list[bool]],
    columns: list[bool],
    biases: list[bool],
    gated: bool,
    bias: bool,
    last_bias: bool,
    name: str,
) -> None:
    of, act = units("feed_forward", 1 + gated, bias=bias, last_bias=last_bias), ACTIVATIONS[name]
    values = parameters(of, rows, columns, biases)
    x = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(1))
    inner = act(projected(values, of.first[0], x))
    for gate in of.first[1:]:
        inner = inner * projected(values, gate, x)
    found = find(of, values.__getitem__, act)
    kept = torch.tensor(found.kept, dtype=torch.long)
    weight, shift = values["last.weight"][:, kept], 0 if found.shift is None else found.shift
    after = F.linear(inner[:, kept], weight) + shift + (values["last.bias"] if last_bias else 0)
    assert torch.allclose(after, projected(values, of.last, inner), atol=1e-5)
    assert found.shift is None or last_bias
    # Nothing that can go stays: all of what nobody reads, and every constant that a bias can take.
    constant = [all(gone[u] for gone in rows[: 1 + gated]) for u in range(COUNT)]
    assert not [u for u in found.kept if columns[u] or (constant[u] and last_bias)]


@given(rows=ZEROED, columns=ZEROED, biases=ZEROED, last_bias=st.booleans())
def test_heads_whose_values_are_constant_leave_the_same_function(
    rows: list[bool], columns: list[bool], biases: list[bool], last_bias: bool
) -> None:
    of = units("attention", 3, bias=True, last_bias=last_bias)
    none = [False] * COUNT
    values = parameters(of, [none, none, rows], columns, biases)
    draw = torch.Generator().manual_seed(1)
    x, weights = torch.randn(7, WIDTH, generator=draw), torch.rand(COUNT, 7, 7, generator=draw).softmax(-1)
    heads = projected(values, of.first[2], x).unflatten(-1, (COUNT, SIZE))
    mixed = torch.einsum("hqk,khd->qhd", weights, heads)
    found = find(of, values.__getitem__, F.gelu)
    kept = torch.tensor(found.kept, dtype=torch.long)
    left = mixed[:, kept].flatten(1), values["last.weight"].unflatten(1, (COUNT, SIZE))[:, kept].flatten(1)
    after = F.linear(*left) + (0 if found.shift is None else found.shift) + (values["last.bias"] if last_bias else 0)
    assert torch.allclose(after, projected(values, of.last, mixed.flatten(1)), atol=1e-5)
    assert not [u for u in found.kept if columns[u] or (rows[u] and (last_bias or biases[u]))]
