"""DeBERTa v2 and v3: BERT's layers with disentangled attention.

Query and key also project the relative positions where these have no projections of their own
(``share_att_key``); a removed head goes from content and positions alike.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..family import Family, Layer, ModelConfig
from .bert import SIZES, STATED, encoder


def layers(config: ModelConfig) -> Iterator[Layer]:
    """All layers, in execution order."""
    return encoder(config, "deberta", ("query_proj", "key_proj", "value_proj"))


FAMILY = Family(
    name="DeBERTa-v2",
    model_types=("deberta-v2",),
    layers=layers,
    sizes=SIZES,
    stated=STATED,
    followers=("pos_key_proj", "pos_query_proj"),
)
