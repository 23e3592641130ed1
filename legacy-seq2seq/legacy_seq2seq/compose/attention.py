"""``nn.MultiheadAttention`` in pieces that can be watched.

The original multiplies by slices of ``in_proj_weight`` and by ``out_proj.weight`` inside one function: no module is
called on what they read, so no hook fires. The module here computes the same from the same parameters, under the same
names, and calls a module for each of the four products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

M = TypeVar("M", bound=nn.Module)


class Slice(nn.Module):
    """The product with one of the matrices that a parameter of another module holds on top of each other."""

    def __init__(self, start: int, rows: int) -> None:
        super().__init__()
        self.rows = slice(start, start + rows)

    def forward(self, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(batch, length, rows) of states (batch, length, in), the whole weight (3 · rows, in) and its bias."""
        return F.linear(states, weight[self.rows], bias[self.rows])


class OpenAttention(nn.Module):
    """Functionally equal to a ``nn.MultiheadAttention`` with ``batch_first`` and biases; takes over its parameters.

    Vaswani et al. 2017, section 3.2.2. Attention weights are not returned.
    """

    _qkv_same_embed_dim = False
    """nn.TransformerEncoderLayer looks here before it hands all its weights to one fused kernel: it must not."""

    def __init__(self, closed: nn.MultiheadAttention) -> None:
        super().__init__()
        if not closed.batch_first or closed.in_proj_weight is None or closed.in_proj_bias is None:
            raise ValueError("only a MultiheadAttention with batch_first, packed weights and biases can be opened up")
        if closed.bias_k is not None or closed.add_zero_attn:
            raise ValueError("a MultiheadAttention with bias_k, bias_v or add_zero_attn cannot be opened up")
        width = closed.embed_dim
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = width, closed.num_heads, closed.dropout, True
        self.in_proj_weight, self.in_proj_bias = closed.in_proj_weight, closed.in_proj_bias
        self.query, self.key, self.value = (Slice(i * width, width) for i in range(3))
        self.out_proj = closed.out_proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """(batch, length, width), and None for the weights; see ``nn.MultiheadAttention.forward``.

        Args:
            key_padding_mask: (batch, source length), added to the scores; or bool, true where a key is hidden.
            attn_mask: (length, source length), likewise; ``is_causal`` only hints at what is in it.
        """
        packed = self.in_proj_weight, self.in_proj_bias
        q, k, v = (
            self._by_heads(one(states, *packed))
            for one, states in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = _added(attn_mask, q)
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q)[:, None, None, :]
            mask = padding if mask is None else padding + mask
        mixed = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None

    def _by_heads(self, states: Tensor) -> Tensor:
        """(batch, heads, length, width of a head) of (batch, length, width)."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask as what is added to the scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill_(mask, float("-inf"))


def open_up(model: M) -> M:
    """Put an :class:`OpenAttention` in the place of every attention, and a module in that of every activation function.

    The state dict stays what it was: names, order and tensors.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(parent, name, OpenAttention(child))
        if isinstance(parent, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
            parent.activation = Activation(parent.activation)
    return model


class Activation(nn.Module):
    """An activation function as a module, so that a feed-forward can be run piece by piece."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, states: Tensor) -> Tensor:
        """The function of ``states``."""
        return self.function(states)
