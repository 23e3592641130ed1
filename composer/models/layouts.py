"""The layout of any model: by its family's table, else by its ``nn.Linear`` modules."""

from __future__ import annotations

from ..scheme.layout import Layout
from .any_linear import linear_layout
from .families import family_of
from .family import ModelConfig, make_layout


def layout_of(config: ModelConfig, where: str = "config.json") -> Layout:
    """Targets and blocks of a model with this ``config.json``.

    Raises:
        ModelError: a ``model_type`` that neither a family nor transformers knows, sizes that are missing, or a
            model in which nothing can be pruned.
    """
    family = family_of(config, where)
    if family:
        return make_layout(family, config)
    return linear_layout(config, where)
