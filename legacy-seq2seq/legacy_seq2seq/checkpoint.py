"""The state between two epochs, as safetensors and JSON: weights, Adam's moments, the random generator, the count."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Progress:
    """Epochs done, the best validation loss, epochs since then, seconds so far."""

    epoch: int = 0
    best: float = float("inf")
    waited: int = 0
    seconds: float = 0.0


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settled: dict[str, Any], progress: Progress
) -> None:
    """Write the state; a killed write leaves the one before."""
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    for name, tensor in model.state_dict().items():
        tensors[f"model.{name}"] = tensor.detach().cpu().contiguous()
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().contiguous()
    text = json.dumps({"settings": settled, "progress": asdict(progress)}, sort_keys=True)
    aside = folder / f".{CHECKPOINT_FILE}.{os.getpid()}"
    save_file(tensors, aside, metadata={"state": text})
    aside.replace(folder / CHECKPOINT_FILE)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, settled: dict[str, Any]
) -> Progress | None:
    """Put a folder's state into model, optimiser and random generator; none: the folder has no checkpoint.

    Raises:
        ValueError: it was written under other settings.
    """
    file = folder / CHECKPOINT_FILE
    if not file.is_file():
        return None
    with safe_open(file, framework="pt") as stored:
        state = json.loads(stored.metadata()["state"])
        for name in sorted({*state["settings"], *settled}):
            had, has = state["settings"].get(name), settled.get(name)
            if had != has:
                raise ValueError(f"{file}: {name} was {had}, now {has}; go on with the same settings or another folder")
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    torch.set_rng_state(tensors["random"])
    return Progress(**state["progress"])
