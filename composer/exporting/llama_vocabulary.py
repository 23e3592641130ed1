"""A tokenizer as GGUF holds it: byte pairs with their merges, or pieces with scores; of any other kind nothing."""

from __future__ import annotations

import json
from typing import Any

from ..files.jsonfile import read_json
from ..models.folder import BaseModel

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""Kinds of tokens (``llama_token_type``)."""
PRE = {
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}": "llama-bpe",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|": "qwen2",
}
"""How texts are cut before pairs are merged: beginning of the pattern -> llama.cpp's name for it."""


def vocabulary_of(base: BaseModel) -> dict[str, Any]:
    """The tokenizer, by the writer's methods (``add_…``).

    Of one that is neither byte pairs nor pieces with single bytes, llama.cpp is told that there is none: it then takes
    and gives numbers of tokens.
    """
    path = base.folder / "tokenizer.json"
    content = read_json(path) if path.is_file() else {}
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or model.get("type") != "BPE":
        return {"tokenizer_model": "none"}
    size = int(base.config["vocab_size"])
    tokens, kinds = _tokens(content, size)
    made = {"token_list": tokens, "token_types": kinds}
    if model.get("byte_fallback"):
        made |= {"tokenizer_model": "llama", "token_scores": [-float(i) for i in range(size)]}
    else:
        merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
        made |= {"tokenizer_model": "gpt2", "tokenizer_pre": _pre(content), "token_merges": merges}
    return made | _special(base)


def _tokens(content: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """All tokens by number, and their kinds; numbers that no token has are filled."""
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [CONTROL] * size
    model = content["model"]
    for token, i in model["vocab"].items():
        is_byte = bool(model.get("byte_fallback")) and len(token) == 6 and token.startswith("<0x")
        tokens[i], kinds[i] = token, BYTE if is_byte else NORMAL
    for added in content.get("added_tokens") or ():
        if added["id"] < size:
            tokens[added["id"]] = added["content"]
            kinds[added["id"]] = CONTROL if added.get("special") else NORMAL
    unknown = model.get("unk_token")
    if unknown in model["vocab"]:
        kinds[model["vocab"][unknown]] = UNKNOWN
    return tokens, kinds


def _pre(content: dict[str, Any]) -> str:
    said = json.dumps(content.get("pre_tokenizer") or {}, ensure_ascii=False)
    for begins, name in PRE.items():
        if json.dumps(begins)[1:-1] in said:
            return name
    return "gpt-2"


def _special(base: BaseModel) -> dict[str, Any]:
    """Numbers of the tokens that begin, end and fill a text."""
    made: dict[str, Any] = {}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = base.config.get(key)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            made[key] = value
    return made
