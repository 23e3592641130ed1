"""Between texts and tensors: tokenising in bulk, lengths, padding, the loss of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError, shown

IGNORED = -100
"""Label of a padded place: cross entropy skips it."""


def tokenise(
    tokenizer: Any,
    texts: Sequence[str],
    max_length: int,
    names: Sequence[str] = ("input_ids",),
    seconds: Sequence[str] | None = None,
    *,
    target: bool = False,
) -> tuple[list[dict[str, list[int]]], list[bool]]:
    """Tokenise texts, or pairs of a text and one of ``seconds``, in one call.

    Raises:
        DataError: a text without a token.

    Returns:
        Per text its unpadded features (those of ``names`` that the tokenizer gives), and whether it was cut.
    """
    if not texts:
        return [], []
    inputs = {"text_target": list(texts)} if target else {"text": list(texts), "text_pair": seconds and list(seconds)}
    encoded = tokenizer(**inputs, truncation=True, max_length=max_length)
    empty = next((text for text, ids in zip(texts, encoded["input_ids"], strict=True) if not ids), None)
    if empty is not None:
        raise DataError(f"text {shown(empty)}: the tokenizer makes no token of it; leave it out")
    columns = {name: encoded[name] for name in names if name in encoded}
    features = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if encoded.encodings is not None:
        return features, [bool(encoding.overflowing) for encoding in encoded.encodings]
    # Python tokenizers do not tell: a full row counts as cut.
    return features, [len(row) >= max_length for row in encoded["input_ids"]]


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Stack rows of integers into (rows, longest), filled up at the end with ``value``."""
    out = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.long)
    return out


def attention_mask(rows: Sequence[Sequence[int]]) -> Tensor:
    """1 for each real token, 0 for padding: (rows, longest)."""
    return pad([[1] * len(row) for row in rows], 0)


def padded_inputs(features: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """What the tokenizer gave of each text as one batch, with ``attention_mask``: each (texts, longest)."""
    rows = {name: [feature[name] for feature in features] for name in features[0]}
    batch = {name: pad(row, pad_id if name == "input_ids" else 0) for name, row in rows.items()}
    return {**batch, "attention_mask": attention_mask(rows["input_ids"])}


PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet")
"""Beginnings of model types whose position table has rows for padding, which no token can use."""


def length_limit(tokenizer: Any, config: dict[str, Any]) -> int | None:
    """Most tokens that the model's position table allows; None where it has none."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions is None or config.get("relative_attention_num_buckets"):
        return None
    if str(config.get("model_type")).startswith(PADDED_POSITIONS):
        positions -= int(config.get("pad_token_id") or 0) + 1
    return min(int(positions), int(tokenizer.model_max_length))


def usual_length(asked: int | None, usual: int, tokenizer: Any, config: dict[str, Any]) -> int:
    """The length that was asked for; else the usual one, or what the model can take where that is less."""
    return asked or min(usual, length_limit(tokenizer, config) or usual)


def check_length(field: str, length: int, tokenizer: Any, config: dict[str, Any]) -> None:
    """``DataError`` if the model's position table is shorter than ``length``."""
    limit = length_limit(tokenizer, config)
    if limit is not None and length > limit:
        raise DataError(f"{field}: got {length}, the model reads at most {limit} tokens")


def token_loss(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Mean cross entropy in nats over the places that have a label, and how many there are.

    Args:
        logits: (..., vocabulary).
        labels: (...), :data:`IGNORED` where nothing is asked.
    """
    count = int((labels != IGNORED).sum())
    total = F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / max(1, count), count
