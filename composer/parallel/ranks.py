"""The processes that a launcher (torchrun) has started, and the model that each of them holds."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn


def is_main_process() -> bool:
    """Whether this process writes files; a launcher such as torchrun starts several."""
    return rank_and_size()[0] == 0


def rank_and_size() -> tuple[int, int]:
    """Which of how many processes this one is."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Return when every process of a launcher has come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def plain(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, also of a model that a launcher has wrapped."""
    return dict(unwrapped(model).named_parameters())


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where a launcher has wrapped it."""
    inner = getattr(model, "module", model)
    return inner if isinstance(inner, torch.nn.Module) else model
