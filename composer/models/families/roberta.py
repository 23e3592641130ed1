"""RoBERTa, XLM-RoBERTa and CamemBERT: BERT's layers; the body of all three is called ``roberta``."""

from __future__ import annotations

from collections.abc import Iterator

from ..family import Family, Layer, ModelConfig
from .bert import SIZES, STATED, encoder


def layers(config: ModelConfig) -> Iterator[Layer]:
    """All layers, in execution order."""
    return encoder(config, "roberta", ("query", "key", "value"))


FAMILY = Family(
    name="RoBERTa", model_types=("roberta", "xlm-roberta", "camembert"), layers=layers, sizes=SIZES, stated=STATED
)
