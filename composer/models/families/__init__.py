"""Model families: one file and one row each; any other model by its ``nn.Linear`` modules."""

from __future__ import annotations

from typing import Any

from ...errors import ModelError
from ...registry import Registry
from ..family import Family, ModelConfig

FAMILIES: Registry[Family] = Registry(
    "model family",
    {
        "t5": "composer.models.families.t5:FAMILY",
        "bart": "composer.models.families.bart:FAMILY",
        "bert": "composer.models.families.bert:FAMILY",
        "roberta": "composer.models.families.roberta:FAMILY",
        "deberta": "composer.models.families.deberta:FAMILY",
        "distilbert": "composer.models.families.distilbert:FAMILY",
        "gpt2": "composer.models.families.gpt2:FAMILY",
        "llama": "composer.models.families.llama:FAMILY",
        "opt": "composer.models.families.opt:FAMILY",
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
            stated = (key for key in family.optional if config.get(key) is not None)
            wrong = [key for key in (*family.sizes, *stated) if not _is_size(config.get(key))]
            if wrong:
                raise ModelError(f"{where}: a {family.name} model needs whole numbers for: {', '.join(wrong)}")
            return family
    return None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def known_types() -> list[str]:
    """Every ``model_type`` that a family's table serves, sorted."""
    return sorted(name for family in FAMILIES.all() for name in family.model_types)
