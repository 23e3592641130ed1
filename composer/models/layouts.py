"""The layout of any model: by its family's table, else by its ``nn.Linear`` modules."""

from __future__ import annotations

from ..errors import ModelError
from ..scheme.layout import Layout
from .any_linear import linear_layout
from .families import family_of
from .family import ModelConfig, make_layout
from .shapes import KEY, shaped_layout, shapes_of, without_heads


def layout_of(config: ModelConfig, where: str = "config.json") -> Layout:
    """Targets and blocks of a model with this ``config.json``.

    Raises:
        ModelError: a ``model_type`` that neither a family nor transformers knows, sizes that are missing, or a
            model in which nothing can be pruned.
    """
    if family_of(config, where):
        return shaped_layout(full_layout(config, where), shapes_of(config, where), where)
    return linear_layout(config, where)  # of real modules: they have the shapes that the configuration states


def full_layout(config: ModelConfig, where: str = "config.json") -> Layout:
    """The layout by the sizes of ``config.json`` alone, whatever shapes of their own its layers have."""
    family = family_of(config, where)
    return make_layout(family, config) if family else layout_of(config, where)


def with_shapes(config: ModelConfig, where: str) -> ModelConfig:
    """The configuration as today's folders have it: heads that transformers 4 pruned are shapes.

    Raises:
        ModelError: removed heads of a model that no family's table serves, or that it does not have.
    """
    if not config.get("pruned_heads"):
        return config
    family = family_of(config, where)
    if family is None:
        raise ModelError(
            f"{where}: pruned_heads: no table for model_type {config.get('model_type')!r} says what they are"
        )
    try:
        gone = {int(layer): list(heads) for layer, heads in config["pruned_heads"].items()}
    except (AttributeError, TypeError, ValueError):
        raise ModelError(f"{where}: pruned_heads: allowed: for each layer a list of heads") from None
    shapes = without_heads(make_layout(family, config), gone, where)
    return {key: value for key, value in config.items() if key != "pruned_heads"} | {KEY: shapes.as_json()}
