"""What all exported models have in common: where they run, their configuration, how they are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, GenerationConfig, PretrainedConfig

from ..errors import ModelError
from .exports import Export, check_packages


class Exported(nn.Module, ABC):
    """A model in another runtime, on the processor, with as many threads as PyTorch has when it is loaded."""

    def __init__(self, folder: Path, export: Export) -> None:
        super().__init__()
        check_packages(export.form, running=True)
        self.export, self.folder = export, folder
        self.config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
        settings = folder / "generation_config.json"
        self.generation_config = (
            GenerationConfig.from_pretrained(folder, local_files_only=True)
            if settings.is_file()
            else GenerationConfig.from_model_config(self.config)
        )
        # Where a model is, its callers learn from its parameters.
        self.here = nn.Parameter(torch.empty(0), requires_grad=False)

    def can_generate(self) -> bool:
        """Whether it makes new tokens."""
        return False

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Stays where it is.

        Raises:
            ModelError: asked for another device than the processor.
        """
        device = torch._C._nn._parse_to(*args, **kwargs)[0]
        if device is not None and device.type != "cpu":
            raise ModelError(f"{self.folder}: {self.export.runtime.title} runs on the processor here; --device cpu")
        return self

    @abstractmethod
    def forward(self, **inputs: Any) -> Any:
        """What the model of transformers gives."""
