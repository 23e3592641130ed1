"""Another activation: the same weights in the model that the changed configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import ModelError
from ..models.any_linear import model_class
from ..models.folder import BaseModel
from ..shrinking.plan import ACTIVATIONS, parsed_config

GATED = "feed_forward_proj"
"""T5's key, which also says whether a feed-forward is gated: ``relu``, ``gated-gelu``."""


def activation_named(base: BaseModel) -> str:
    """What the configuration calls the activation.

    Raises:
        ModelError: it names none.
    """
    parsed = parsed_config(base.config)
    named = next((getattr(parsed, key) for key in ACTIVATIONS if getattr(parsed, key, None)), None)
    if not isinstance(named, str):
        raise ModelError(f"--activation: {base.name}: its configuration names no activation ({', '.join(ACTIVATIONS)})")
    return named


def with_activation(base: BaseModel, activation: str) -> dict[str, Any]:
    """``config.json`` of the same model with this activation.

    Raises:
        ModelError: it has it already, or names none.
    """
    if activation_named(base) == activation:
        raise ModelError(f"--activation: {base.name} has {activation} already; leave it out")
    config, parsed = dict(base.config), parsed_config(base.config)
    if gated := getattr(parsed, GATED, None):
        config[GATED] = f"gated-{activation}" if str(gated).startswith("gated-") else activation
    return config | {key: activation for key in ACTIVATIONS if isinstance(getattr(parsed, key, None), str)}


def in_configuration(model: nn.Module, config: Mapping[str, Any]) -> nn.Module:
    """A model of this configuration with the parameters and buffers of ``model``, which it takes over."""
    made: nn.Module = model_class(dict(config))(parsed_config(config))
    made.load_state_dict(model.state_dict(), assign=True)
    anyhow: Any = made
    anyhow.tie_weights()
    return made.to(next(model.parameters()).device).eval()
