"""Parameters of a model by name, and values put into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, as the model itself names them, also where a launcher has wrapped it."""
    return dict(unwrapped(model).named_parameters())


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where a launcher has wrapped it (``DistributedDataParallel.module``)."""
    inner = getattr(model, "module", model)
    # A model of one's own may have an attribute of this name that is something else.
    return inner if isinstance(inner, nn.Module) else model


@torch.no_grad()
def set_values(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Put values into the parameters of these names, in place, whatever device they come from.

    In place, because a tensor may be a parameter of several modules, and an optimiser or a hook holds it.

    Raises:
        KeyError: a name that no parameter has.
    """
    for name, value in values.items():
        parameters[name].copy_(value)


@contextmanager
def replaced(parameters: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Within the body the parameters named in ``weights`` have these values; yields the paths of their modules."""
    kept = {name: parameters[name].detach().clone() for name in weights}
    try:
        set_values(parameters, weights)
        yield list(dict.fromkeys(name.rpartition(".")[0] for name in weights))
    finally:
        set_values(parameters, kept)
