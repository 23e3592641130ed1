"""Running a model: its mode, its batch where it is, and hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError


def to_device_of(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch on the device of the model's parameters."""
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


def real_rows(states: Tensor, tokens: Tensor, path: str) -> Tensor:
    """The rows of real tokens, (tokens, width), of what the module at ``path`` reads or gives.

    Args:
        states: (batch, length, width), or (batch * length, width) as OPT's feed-forward has it.
        tokens: bool (batch, length), True where a token is real.

    Raises:
        ModelError: ``states`` has no row for each token, as a pooler's input has not.
    """
    if states.shape[:-1].numel() != tokens.numel():
        raise ModelError(
            f"{path}: works on a tensor of shape {tuple(states.shape)}, which has no row for each of the "
            f"{tokens.shape[0]} x {tokens.shape[1]} tokens; leave this module out"
        )
    return states.reshape(*tokens.shape, states.shape[-1])[tokens]


@contextmanager
def hooked(handles: Iterable[AbstractContextManager[Any]]) -> Iterator[None]:
    """Hooks, as torch's ``register_…_hook`` return them, last as long as the body.

    ``handles`` may register them while it is read: where one cannot be, those before it are removed.
    """
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield


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
