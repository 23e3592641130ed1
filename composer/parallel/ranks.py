"""The processes that a launcher (torchrun) has started: which one this is, and waiting for the others."""

from __future__ import annotations

import os


def is_main_process() -> bool:
    """Whether this process writes files; a launcher such as torchrun starts several."""
    return rank_and_size()[0] == 0


def rank_and_size() -> tuple[int, int]:
    """Which of how many processes this one is."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Return when every process of a launcher has come here."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
