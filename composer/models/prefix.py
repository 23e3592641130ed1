"""Where a family's body stands inside a model with a head."""

from __future__ import annotations

from typing import Any


def prefix(config: dict[str, Any], name: str) -> str:
    """``"name."`` for a model with a head (``…ForSequenceClassification``), ``""`` for the bare body.

    >>> prefix({"architectures": ["BertForMaskedLM"]}, "bert")
    'bert.'
    >>> prefix({"architectures": ["BertModel"]}, "bert")
    ''
    """
    architecture = (config.get("architectures") or ["For"])[0]
    return "" if architecture.endswith("Model") else f"{name}."
