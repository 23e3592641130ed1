"""In which precision long sums are kept."""

from __future__ import annotations

import torch


def exact(device: torch.device) -> torch.dtype:
    """float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64
