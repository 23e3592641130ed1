"""What models are timed on: batches of random tokens, all of one length, so that nothing is padded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..models.family import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 8
"""The first and the last ids are often special tokens or unused ones; no random token is among so many of them."""


def longest(config: ModelConfig, new_tokens: int) -> int | None:
    """How many tokens the model's position table has room for, before so many new ones; None where it has none."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions is None or config.get("relative_attention_num_buckets"):
        return None
    return int(positions) - (0 if config.get("is_encoder_decoder") else new_tokens) - 2


def check_length(config: ModelConfig, length: int, new_tokens: int, name: str) -> None:
    """Refuse what the model's position table has no room for.

    Raises:
        InputError: with the length that it allows.
    """
    room = longest(config, new_tokens)
    if room is not None and length > room:
        more = f" with {new_tokens} new tokens" if new_tokens else ""
        raise InputError(f"--length: got {length}{more}; {name} reads at most {room}")


def batch_of(config: ModelConfig, batch_size: int, length: int, seed: int = 0) -> dict[str, Tensor]:
    """``input_ids`` and ``attention_mask``, each (batch_size, length)."""
    import torch

    vocabulary = int(config.get("vocab_size") or 2)
    low, high = (KEPT, vocabulary - KEPT) if vocabulary > 4 * KEPT else (0, vocabulary)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(low, high, (batch_size, length), generator=generator)
    end = config.get("eos_token_id")
    if isinstance(end, int) and config.get("is_encoder_decoder"):
        ids[ids == end] = low
        ids[:, -1] = end  # BART's classifiers look for it
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def generation(model: Any, tokens: int) -> Any:
    """Settings of a plain search that makes exactly ``tokens`` new tokens, whatever they are."""
    from transformers import GenerationConfig

    kept = getattr(model, "generation_config", None)
    own = getattr(model, "config", None)
    names = ("bos_token_id", "pad_token_id", "decoder_start_token_id")
    stated = {n: getattr(kept, n, None) if getattr(kept, n, None) is not None else getattr(own, n, None) for n in names}
    stated["pad_token_id"] = stated["pad_token_id"] or 0
    # No token ends the text, so all runs are equally long.
    return GenerationConfig(
        **stated,
        eos_token_id=None,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        num_beams=1,
        do_sample=False,
        use_cache=True,
    )
