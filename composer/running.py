"""Running a model without training it: its mode, and its batch where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def to_device_of(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch on the device of the model's parameters."""
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


@contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; each submodule's mode is restored afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
