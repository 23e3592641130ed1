"""Model families: one file and one row each."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError
from ..layout import Layout
from ..registry import Registry
from .adapter import Family, ModelConfig, make_layout

FAMILIES: Registry[Family] = Registry(
    "model family",
    {
        "t5": "composer.models.t5:FAMILY",
        "distilbert": "composer.models.distilbert:FAMILY",
        "bert": "composer.models.bert:FAMILY",
    },
)


def family_of(config: ModelConfig, where: str) -> Family:
    """The family that serves this ``config.json``.

    Raises:
        ModelError: an unknown ``model_type``, or sizes that the family needs and the file lacks.
    """
    families = [FAMILIES.get(name) for name in FAMILIES.names()]
    model_type = config.get("model_type")
    for family in families:
        if model_type in family.model_types:
            wrong = [key for key in family.sizes if not _is_size(config.get(key))]
            if wrong:
                raise ModelError(f"{where}: a {family.name} model needs whole numbers for: {', '.join(wrong)}")
            return family
    known = sorted(name for family in families for name in family.model_types)
    raise ModelError(f"{where}: model_type is {model_type!r}; allowed: {', '.join(known)}")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def layout_of(config: ModelConfig, where: str = "config.json") -> Layout:
    """Targets and blocks of a model with this ``config.json``."""
    return make_layout(family_of(config, where), config)
