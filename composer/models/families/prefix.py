"""Where a family's body stands inside a model with a head."""

from __future__ import annotations

from typing import Any

HEADS = ("HeadModel", "HeadsModel", "MTModel")
"""Ends of names of models that have a head all the same: GPT2LMHeadModel, GPT2DoubleHeadsModel, MarianMTModel."""


def prefix(config: dict[str, Any], name: str) -> str:
    """``"name."`` for a model with a head (``…ForSequenceClassification``), ``""`` for the bare body.

    >>> prefix({"architectures": ["BertForMaskedLM"]}, "bert")
    'bert.'
    >>> prefix({"architectures": ["BertModel"]}, "bert")
    ''
    >>> prefix({}, "deberta")
    ''
    >>> prefix({"architectures": ["GPT2LMHeadModel"]}, "transformer")
    'transformer.'
    """
    architecture = (config.get("architectures") or ["Model"])[0]  # without a name AutoModel loads the bare body
    bare = architecture.endswith("Model") and not architecture.endswith(HEADS)
    return "" if bare else f"{name}."
