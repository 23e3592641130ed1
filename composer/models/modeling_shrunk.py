"""A transformers model whose layers have shapes of their own, or whose norms are simpler: loads what ``config.json``
states under ``shrunk`` and ``simplified``.

    AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)

This file stands beside the weights and needs transformers alone. Under ``shrunk`` the configuration says

* ``linear``: path of a projection -> its (out, in) features;
* ``heads``: path of an attention -> indices of the heads (key and value heads, where groups share them) that it keeps.

and under ``simplified``

* ``norms``: path of a norm that is a scale and a shift of each feature -> how many vectors it has: 2, of a scale alone
  1, and 0 where the linear layers that read it have taken them up.

A class of this module is the class of the same name of transformers, built as usual and then cut to these shapes.
A projection without rows gives vectors without entries; one without columns is a constant, its bias. Heads are cut
in three ways. Most attentions take their number of heads from the projections. T5 adds a position bias to the scores
of each head: all layers share the bias of all heads, and each takes its own from it. An attention without heads is
its out-projection's constant, and counts its tokens in the cache for those that ask the first layer how many there
were.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

KEY = "shrunk"
"""Key of ``config.json``."""
SIMPLE = "simplified"
"""Key of ``config.json``."""
COUNTS = ("num_heads", "num_attention_heads", "n_heads")
"""Attributes by which attentions know how many heads they have."""
WIDTHS = ("head_dim", "attention_head_size", "key_value_proj_dim")
"""Attributes by which they know how wide a head is."""
SUMS = ("all_head_size", "split_size", "inner_dim")
"""Attributes by which they know how wide all heads are together."""
OUT = ("out_lin", "out_proj", "o_proj", "c_proj", "o")
"""Names of the out-projection, where the attention itself holds it."""


class Gone(nn.Module):
    """A projection without rows: vectors without entries."""

    def forward(self, states: Tensor) -> Tensor:
        """(…, in) -> (…, 0)."""
        return states[..., :0]


class Constant(nn.Module):
    """A projection without columns: its bias, or 0, for every token."""

    def __init__(self, width: int, bias: Tensor | None) -> None:
        super().__init__()
        self.width = width
        self.register_parameter("weight", None)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))

    def forward(self, states: Tensor) -> Tensor:
        """(…, 0) -> (…, out)."""
        nothing = states.new_zeros((*states.shape[:-1], self.width))
        bias: Tensor | None = self.bias  # type: ignore[assignment]
        return nothing if bias is None else nothing + bias


class WithoutHeads(nn.Module):
    """Laid over the class of an attention that keeps no head."""

    def forward(self, hidden_states: Tensor, *_: Any, past_key_values: Any = None, **options: Any) -> tuple[Any, ...]:
        """The constant of its out-projection, where it holds that, and no attention weights."""
        crossing = options.get("key_value_states") is not None or options.get("encoder_hidden_states") is not None
        if past_key_values is not None and not crossing:
            # Of one entry: the cache takes keys without entries for keys without tokens.
            counted = hidden_states.new_zeros((hidden_states.shape[0], 1, hidden_states.shape[1], 1))
            own = getattr(past_key_values, "self_attention_cache", past_key_values)
            own.update(counted, counted, self.layer_idx)
        nothing = hidden_states[..., :0]
        out = next((getattr(self, name) for name in OUT if hasattr(self, name)), None)
        return (nothing if out is None else out(nothing)), None


def all_biases(attention: Any, states: Tensor, mask: Tensor | None, past_key_values: Any) -> Tensor:
    """The position bias of all heads, as T5's first layer makes it: (1, heads, queries, keys)."""
    seen = 0 if past_key_values is None else past_key_values.get_seq_length(attention.layer_idx)
    keys = states.shape[1] + seen if mask is None else mask.shape[-1]
    bias: Tensor = attention.compute_bias(states.shape[1], keys, device=states.device, past_seen_tokens=seen)
    return bias


class SomeHeads(nn.Module):
    """Laid over T5's self-attention that keeps some heads: takes their biases from those of all, and hands on all."""

    kept: list[int]

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        """As T5's."""
        if position_bias is None:
            position_bias = all_biases(self, hidden_states, mask, past_key_values)
        own = position_bias[:, torch.tensor(self.kept, device=position_bias.device)]
        result = super().forward(hidden_states, mask, key_value_states, own, past_key_values=past_key_values, **options)
        return result[0], position_bias, *result[2:]


class NoT5Heads(WithoutHeads):
    """Laid over T5's attention that keeps no head: hands on the position bias."""

    def forward(self, hidden_states: Tensor, *_: Any, past_key_values: Any = None, **options: Any) -> tuple[Any, ...]:
        """As T5's."""
        bias = options.get("position_bias")
        if bias is None and self.has_relative_attention_bias:
            bias = all_biases(self, hidden_states, options.get("mask"), past_key_values)
        output, weights = super().forward(hidden_states, past_key_values=past_key_values, **options)
        return output, bias, weights


class NoNorm(nn.Module):
    """``y = w∘x + b`` in place of a norm (MobileBERT, Sun et al. 2020).

    ``weight`` is (2, width), w and then b; of a scale alone (1, width). It is one tensor so that a model with ordinary
    norms, whose own weight is (width,), refuses it instead of computing something else.
    """

    def __init__(self, width: int, vectors: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([torch.ones(1, width), torch.zeros(vectors - 1, width)]))

    def forward(self, states: Tensor) -> Tensor:
        """(…, width) -> (…, width)."""
        if len(self.weight) == 1:
            return states * self.weight[0]
        return torch.addcmul(self.weight[1], states, self.weight[0])


class Shrunk:
    """Laid over the class of a model: its modules get the shapes, and its norms the form, that its configuration
    states."""

    def __init__(self, config: Any, *args: Any, **options: Any) -> None:
        super().__init__(config, *args, **options)  # type: ignore[call-arg]
        cut(self, getattr(config, KEY, None) or {})  # type: ignore[arg-type]
        simplify(self, (getattr(config, SIMPLE, None) or {}).get("norms", {}))  # type: ignore[arg-type]

    def _init_weights(self, module: nn.Module) -> None:
        # Some families reach from an attention or a feed-forward for its projections' weights, and these have none.
        if not any(isinstance(child, (Gone, Constant)) for child in module.children()):
            super()._init_weights(module)  # type: ignore[misc]


def cut(model: nn.Module, shapes: dict[str, Any]) -> None:
    """Give the modules of ``model`` these shapes, in place."""
    crossing = []
    for path, (rows, columns) in shapes.get("linear", {}).items():
        if (found := place(model, path)) is not None:
            owner, name = found
            setattr(owner, name, resized(getattr(owner, name), rows, columns))
    for path, kept in shapes.get("heads", {}).items():
        if (found := place(model, path)) is not None:
            attention: Any = getattr(*found)
            if hasattr(attention, "has_relative_attention_bias"):
                cut_t5(attention, kept, crosses=path.endswith("EncDecAttention"))
                crossing += [path] if path.endswith("EncDecAttention") else []
            else:
                cut_attention(attention, kept)
    if crossing:
        for path, attention in model.named_modules():
            if path.endswith("EncDecAttention"):
                # Their position bias is 0 and the first layer's is handed on: of one head it fits any number.
                attention.n_heads = 1


def simplify(model: nn.Module, norms: dict[str, int]) -> None:
    """Put a scale and a shift in place of these norms, in place; nothing where others have taken them up."""
    for path, vectors in norms.items():
        if (found := place(model, path)) is not None:
            owner, name = found
            width = len(getattr(owner, name).weight)
            setattr(owner, name, NoNorm(width, vectors) if vectors else nn.Identity())


def place(model: nn.Module, path: str) -> tuple[nn.Module, str] | None:
    """The module that holds ``path``, and its name there; without or with the name of the body before it."""
    for name in (path, path.partition(".")[2], f"{getattr(model, 'base_model_prefix', '')}.{path}"):
        owner, _, last = name.rpartition(".")
        try:
            model.get_submodule(name)
            return model.get_submodule(owner), last
        except AttributeError:
            continue
    return None


def resized(old: Any, rows: int, columns: int) -> nn.Module:
    """A projection of (rows, columns) in place of ``old``."""
    turned = hasattr(old, "nf")  # GPT-2's stores (in, out)
    weight, bias = old.weight.detach(), getattr(old, "bias", None)
    if not rows:
        return Gone()
    if not columns:
        return Constant(rows, bias)
    old.weight = nn.Parameter((weight[:columns, :rows] if turned else weight[:rows, :columns]).clone())
    if bias is not None:
        old.bias = nn.Parameter(bias.detach()[:rows].clone())
    old.__dict__.update({"nf": rows, "nx": columns} if turned else {"out_features": rows, "in_features": columns})
    cut_module: nn.Module = old
    return cut_module


def cut_attention(attention: Any, kept: list[int]) -> None:
    """An attention whose heads are all alike."""
    if not kept:
        lay_over(attention, WithoutHeads)
        return
    for name in COUNTS:
        if hasattr(attention, name):
            setattr(attention, name, len(kept))
    width = next(getattr(attention, name) for name in WIDTHS if hasattr(attention, name))
    for name in SUMS:
        if hasattr(attention, name):
            setattr(attention, name, len(kept) * width)


def cut_t5(attention: Any, kept: list[int], *, crosses: bool) -> None:
    """An attention of T5, whose heads have biases of their own."""
    if kept and not crosses:
        attention.kept = list(kept)
    if not kept or not crosses:
        lay_over(attention, SomeHeads if kept else NoT5Heads)
    attention.n_heads = 1 if crosses else len(kept)
    attention.inner_dim = len(kept) * attention.key_value_proj_dim


def lay_over(module: nn.Module, mixin: type) -> None:
    """Let ``module`` be of a class that is ``mixin`` first and its own then."""
    own = type(module)
    module.__class__ = type(own.__name__, (mixin, own), {"__module__": __name__})


def __getattr__(name: str) -> type:
    """The class of this name of transformers, cut to the shapes of its configuration."""
    base = None if name.startswith("_") else getattr(transformers, name, None)
    if not (isinstance(base, type) and issubclass(base, transformers.PreTrainedModel)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = type(name, (Shrunk, base), {"__module__": __name__})
    globals()[name] = made
    return made
