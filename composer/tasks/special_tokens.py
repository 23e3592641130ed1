"""Special tokens that ``config.json``, ``generation_config.json`` and the tokenizer may say differently: settled here.

What the model itself looks at wins: a decoder that classifies finds its last token by the padding of ``config.json``,
RoBERTa counts its positions by it. So batches are padded with that one, whatever the tokenizer calls padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from torch import nn


def pad_id(tokenizer: Any, config: dict[str, Any]) -> int:
    """Id of the padding token: the one of ``config.json``, or else the tokenizer's.

    Raises:
        ModelError: neither has one, or the model has no such token.
    """
    said = config.get("pad_token_id")
    token = said if said is not None and said >= 0 else tokenizer.pad_token_id
    if token is None:
        raise ModelError("the tokenizer has no padding token and config.json no pad_token_id")
    size = config.get("vocab_size")
    if size is not None and not 0 <= token < size:
        raise ModelError(f"config.json: pad_token_id: got {token}; allowed: 0 to {size - 1}, as vocab_size is {size}")
    return int(token)


def settle_padding(model: nn.Module, pad: int) -> None:
    """Tell a model whose config names no padding which token the batches are padded with."""
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = pad


def end_ids(tokenizer: Any, stated: Any) -> list[int]:
    """Tokens that end a generated text: what the checkpoint states, and what the tokenizer ends its targets with.

    A model that was fine-tuned on those targets ends with the tokenizer's; without it texts would run on.

    >>> end_ids(type("Tokenizer", (), {"eos_token_id": 2})(), [1])
    [1, 2]
    """
    ends = list(stated) if isinstance(stated, (list, tuple)) else [stated]
    own = getattr(tokenizer, "eos_token_id", None)
    return list(dict.fromkeys(end for end in (*ends, own) if end is not None))
