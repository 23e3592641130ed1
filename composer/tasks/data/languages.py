"""Names of languages, and the prefix that a translation model was trained to expect."""

from __future__ import annotations

from typing import Any

from ...errors import DataError
from .options import DataOptions

NAMES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}

PREFIXED = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
"""Model types that are told in words what to do."""


def resolve_prefix(options: DataOptions, config: dict[str, Any]) -> str:
    """The text before each source sentence: as asked, as config.json says, as T5 models expect, or none.

    >>> resolve_prefix(DataOptions(data="demo"), {"model_type": "t5"})
    'translate English to German: '
    >>> resolve_prefix(DataOptions(data="demo"), {"model_type": "marian"})
    ''
    """
    if options.prefix is not None:
        return options.prefix
    source, target = options.source_lang, options.target_lang
    tasks = config.get("task_specific_params") or {}
    stated = (tasks.get(f"translation_{source}_to_{target}") or {}).get("prefix")
    if stated is not None:
        return str(stated)
    if config.get("model_type") not in PREFIXED:
        return ""
    unknown = [
        f"{field}: no name is known for the language {code!r}; give the prefix yourself (prefix)"
        for field, code in (("source_lang", source), ("target_lang", target))
        if code not in NAMES
    ]
    if unknown:
        raise DataError(unknown)
    return f"translate {NAMES[source]} to {NAMES[target]}: "
