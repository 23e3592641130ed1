"""Generation that depends on the model and nothing else: plain search, whatever a checkpoint's settings say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .special_tokens import end_ids

# What a model needs to know to start and to stop; the rest of a checkpoint's generation settings
# (sampling, beams, lengths) would make figures of different models incomparable.
STRUCTURAL = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
)


@contextmanager
def plain_generation(
    model: Any,
    tokenizer: Any,
    max_new_tokens: int,
    num_beams: int,
    *,
    sampling: Mapping[str, Any] | None = None,
    **more: Any,
) -> Iterator[None]:
    """Let ``model.generate`` search plainly (unless sampling is asked for), whatever the checkpoint says.

    ``sampling`` holds temperature and the like. ``more`` are settings for models that have none of their own.
    """
    from transformers import GenerationConfig

    kept = model.generation_config
    stated = {name: getattr(kept, name, None) for name in STRUCTURAL}
    structural = more | {name: value for name, value in stated.items() if value is not None}
    if ends := end_ids(tokenizer, stated["eos_token_id"]):
        structural["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    model.generation_config = GenerationConfig(
        **structural,
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        do_sample=bool(sampling),
        **(sampling or {}),
    )
    try:
        yield
    finally:
        model.generation_config = kept
