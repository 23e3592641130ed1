"""Attention heads of a real model, found by looking at its modules and its configuration object.

Independent of Composer's layouts: which rows of q, k and v belong together is worked out from the sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from .closed_form import array, damped, greedy_groups
from .inputs import seen_by_rows
from .modules import FUSED, QUERY_KEY_VALUE, linear_modules, target_of

OUT = ("o", "out_lin", "c_proj", "o_proj", "out_proj")


@dataclass(frozen=True)
class Attention:
    """One attention: its path, its out-projection's path, and how many heads it has of each kind."""

    path: str
    out: str
    queries: int
    keys: int


def attentions(model: nn.Module) -> Iterator[Attention]:
    """Every attention of the model, in the order in which it defines them."""
    config: Any = model.config
    queries = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or queries
    paths = dict(model.named_modules())
    owners = dict.fromkeys(owner for p, _ in linear_modules(model) if (owner := target_of(p)) != p)
    for owner in owners:
        beside = [f"{owner}.{name}" for name in OUT if f"{owner}.{name}" in paths]
        out = beside[0] if beside else f"{owner.removesuffix('.self')}.output.dense"
        assert out in paths
        yield Attention(owner, out, queries, keys)


def rows(model: nn.Module, attention: Attention) -> list[tuple[str, Tensor, int]]:
    """For q, k and v: name of the parameter, its part as (heads, size, in), and how many heads it has."""
    module, heads = model.get_submodule(attention.path), (attention.queries, attention.keys, attention.keys)
    found: list[tuple[str, Tensor, int]] = []
    for name, child in module.named_children():
        weight = child.get_parameter("weight").detach() if name in {*QUERY_KEY_VALUE, *FUSED} else None
        if weight is not None and name in FUSED:
            parts = weight.T.chunk(3)
            found += [(f"{attention.path}.{name}", part, n) for part, n in zip(parts, heads, strict=True)]
        elif weight is not None:
            found.append((f"{attention.path}.{name}", weight, heads["qkv".index(name[0])]))
    assert len(found) == 3
    return [(path, weight.reshape(n, -1, weight.shape[1]), n) for path, weight, n in found]


def cheapest_groups(model: nn.Module, attention: Attention, read: Tensor, count: int, damping: float) -> list[int]:
    """The ``count`` groups that go one by one, each time the one that the repaired out-projection misses least.

    ``read`` (tokens, in) is what the out-projection reads; a bias is one more column, of ones, that stays.
    """
    module = model.get_submodule(attention.out)
    W, X = array(seen_by_rows(module)), array(read)
    size = W.shape[1] // attention.queries
    if getattr(module, "bias", None) is not None:
        W, X = np.c_[W, array(module.get_parameter("bias"))], np.c_[X, np.ones(len(X))]
    A, _ = damped(X.T @ X, damping)
    groups: list[list[int]] = [[] for _ in range(attention.keys)]
    for head in range(attention.queries):
        groups[head * attention.keys // attention.queries] += range(head * size, (head + 1) * size)
    return sorted(greedy_groups(W, A, groups, count)[0])


def lowest_groups(model: nn.Module, attention: Attention, count: int) -> list[int]:
    """The ``count`` groups (a key and value head with the query heads that share it) with the smallest weights."""
    scores = np.zeros(attention.keys)
    for _, parts, n in rows(model, attention):
        for head in range(n):
            scores[head * attention.keys // n] += np.abs(parts[head].double().numpy()).sum()
    return sorted(np.argsort(scores, kind="stable")[:count].tolist())
