"""What the linear modules of one layer read: layer by layer, as the published pruners go through a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def seen_by_rows(module: nn.Module, held: Tensor | None = None) -> Tensor:
    """A module's weight, or what is shaped as it, as (out, in), and back: ``Conv1D`` stores it the other way round."""
    tensor = module.get_parameter("weight").detach() if held is None else held
    return tensor.T if isinstance(module, Conv1D) else tensor


@torch.no_grad()
def inputs_of(
    model: nn.Module, names: Sequence[str], samples: Sequence[Mapping[str, Tensor]]
) -> dict[str, list[Tensor]]:
    """By the module's name, (tokens, in) of each sample that the model is called with."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def listen(name: str):  # type: ignore[no-untyped-def]
        return lambda _, read: found[name].append(read[0].reshape(-1, read[0].shape[-1]))

    handles = [model.get_submodule(name).register_forward_pre_hook(listen(name)) for name in names]
    for sample in samples:
        model(**sample)
    for handle in handles:
        handle.remove()
    return found
