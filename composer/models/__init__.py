"""Model families: one file and one row each; any other model by its ``nn.Linear`` modules."""

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
        "bart": "composer.models.bart:FAMILY",
        "bert": "composer.models.bert:FAMILY",
        "roberta": "composer.models.roberta:FAMILY",
        "deberta": "composer.models.deberta:FAMILY",
        "distilbert": "composer.models.distilbert:FAMILY",
        "gpt2": "composer.models.gpt2:FAMILY",
        "llama": "composer.models.llama:FAMILY",
        "opt": "composer.models.opt:FAMILY",
    },
    group="composer.families",
)


def family_of(config: ModelConfig, where: str) -> Family | None:
    """The family that serves this ``config.json``; None where no table does.

    Raises:
        ModelError: sizes that the family needs and the file lacks.
    """
    for family in FAMILIES.all():
        if config.get("model_type") in family.model_types:
            given = (key for key in family.optional if config.get(key) is not None)
            wrong = [key for key in (*family.sizes, *given) if not _is_size(config.get(key))]
            if wrong:
                raise ModelError(f"{where}: a {family.name} model needs whole numbers for: {', '.join(wrong)}")
            return family
    return None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def known_types() -> list[str]:
    """Every ``model_type`` that a family's table serves, sorted."""
    return sorted(name for family in FAMILIES.all() for name in family.model_types)


def layout_of(config: ModelConfig, where: str = "config.json") -> Layout:
    """Targets and blocks of a model with this ``config.json``.

    Raises:
        ModelError: a ``model_type`` that neither a family nor transformers knows, sizes that are missing, or a
            model in which nothing can be pruned.
    """
    family = family_of(config, where)
    if family:
        return make_layout(family, config)
    from .anything import linear_layout

    return linear_layout(config, where, known_types())
