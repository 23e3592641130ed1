"""Prunable modules of a real model, found by looking at it instead of at a family's table."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

QUERY_KEY_VALUE = {"q", "k", "v", "q_lin", "k_lin", "v_lin", "query", "key", "value"}
NO_TARGETS = {"lm_head", "classifier", "pre_classifier", "pooler", "cls", "qa_outputs"}
"""Parts of a path that mark heads and poolers."""


def linear_modules(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear module that belongs to an attention or a feed-forward."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and not NO_TARGETS & set(path.split(".")):
            yield path, module


def discover(model: nn.Module) -> dict[str, dict[str, tuple[tuple[int, ...], bool]]]:
    """Target path -> its projections: path -> (weight's shape, has a bias).

    Query, key and value are grouped under the module that owns them; any other one stands for itself.
    """
    found: dict[str, dict[str, tuple[tuple[int, ...], bool]]] = {}
    for path, module in linear_modules(model):
        owner, _, name = path.rpartition(".")
        key = owner if name in QUERY_KEY_VALUE else path
        found.setdefault(key, {})[path] = (tuple(module.weight.shape), module.bias is not None)
    return found
