"""Prunable modules of a real model, found by looking at it instead of at a family's table."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers.pytorch_utils import Conv1D

QUERY_KEY_VALUE = {
    name.format(letter, word)
    for letter, word in (("q", "query"), ("k", "key"), ("v", "value"))
    for name in ("{0}", "{0}_lin", "{0}_proj", "{1}", "{1}_proj")
}
FUSED = {"c_attn"}
"""Modules that hold query, key and value on top of each other."""
NO_TARGETS = {"lm_head", "classifier", "pre_classifier", "pooler", "cls", "qa_outputs", "score", "multiple_choice_head"}
"""Parts of a path that mark heads and poolers."""
AROUND = {"embeddings_project", "project_in", "project_out", "pos_key_proj", "pos_query_proj"}
"""Modules that belong to embeddings and positions."""


def linear_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every linear module that belongs to an attention or a feed-forward."""
    # A decoder by itself has BART's cross-attention, and never runs it.
    unused = {"encoder_attn"} if type(model).__name__.endswith("ForCausalLM") else set()
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and not (NO_TARGETS | AROUND | unused) & set(path.split(".")):
            yield path, module


def target_of(path: str) -> str:
    """The target that a linear module belongs to: the attention above query, key and value, or itself."""
    owner, _, name = path.rpartition(".")
    return owner if name in QUERY_KEY_VALUE | FUSED else path


def discover(model: nn.Module) -> dict[str, dict[str, tuple[tuple[int, ...], bool]]]:
    """Target path -> its modules: path -> (weight's shape as it is stored, has a bias).

    Query, key and value are grouped under the module that owns them; any other one stands for itself.
    """
    found: dict[str, dict[str, tuple[tuple[int, ...], bool]]] = {}
    for path, module in linear_modules(model):
        shape = tuple(module.get_parameter("weight").shape)
        found.setdefault(target_of(path), {})[path] = (shape, getattr(module, "bias", None) is not None)
    return found
