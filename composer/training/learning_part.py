"""Which part of a model learns: everything, its biases and norms alone, or low-rank updates under its masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import ModelError, RecipeError
from ..models.adapters import import_peft
from ..models.in_memory import vectors_of
from .adapters import mask_adapters
from .settings import RANK, SCALE

if TYPE_CHECKING:
    from .settings import Part

MOMENTS = 2
"""Numbers that AdamW keeps for each parameter that learns."""


@dataclass(frozen=True)
class LearningPart:
    """How much of a model learns.

    Attributes:
        parameters: how many numbers learn; ``of`` are in the model itself.
        optimizer_bytes: of AdamW's two averages of them.
    """

    parameters: int
    of: int
    optimizer_bytes: int

    @classmethod
    def of_model(cls, model: nn.Module, size: int) -> LearningPart:
        """Count what requires a gradient; ``size`` is the number of the model's own parameters."""
        learning = [p for p in model.parameters() if p.requires_grad]
        taken = sum(MOMENTS * p.numel() * p.element_size() for p in learning)
        return cls(sum(p.numel() for p in learning), size, taken)

    def plain(self) -> dict[str, Any]:
        """For records."""
        return {"parameters": self.parameters, "of": self.of, "optimizer_bytes": self.optimizer_bytes}


@contextmanager
def learning(model: nn.Module, part: Part, modules: Sequence[str] = (), seed: int = 0) -> Iterator[LearningPart]:
    """Within the body only ``part`` of ``model`` learns; afterwards its low-rank updates are merged.

    - ``biases-norms``: vectors only (Zimmer et al. 2023, "PERP": nearly enough after pruning).
    - ``lora``: biases and norms, and for each of ``modules`` an update ``M∘(BA)`` of rank 8 through peft (Hu et al.
      2021), under the mask of its zeros, which merges exactly (:mod:`.adapters`).

    Raises:
        RecipeError: ``lora`` where there are no modules for it.
        ModelError: peft is not installed, or has no update for one of the modules.
    """
    if part == "lora" and not modules:
        raise RecipeError("--train: got 'lora'; allowed here: all, biases-norms (lora is for one whole model)")
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    size = sum(p.numel() for p in model.parameters())
    if part != "all":
        vectors = vectors_of(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in vectors and parameter.requires_grad)
    if part == "lora":
        _adapt(model, modules, seed)
    try:
        yield LearningPart.of_model(model, size)
    finally:
        if part == "lora":
            _merge(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])


def _adapt(model: nn.Module, modules: Sequence[str], seed: int) -> None:
    """Put low-rank updates into the modules themselves, so that the model stays of its own class."""
    peft = import_peft("--train lora")
    vectors = [p for p in model.parameters() if p.requires_grad]
    config = peft.LoraConfig(
        r=RANK, lora_alpha=SCALE * RANK, lora_dropout=0.0, target_modules=list(dict.fromkeys(modules))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(config, model)
        except ValueError as bad:
            raise ModelError(f"--train lora: {str(bad).splitlines()[0]}") from bad
    for parameter in vectors:  # peft freezes all but its own
        parameter.requires_grad_(True)
    if any(bool((m.get_base_layer().weight == 0).any()) for m in _layers(model).values()):
        mask_adapters(model)


def _merge(model: nn.Module) -> None:
    """Add the updates to the weights, and take the adapters out again."""
    for name, layer in _layers(model).items():
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())


def _layers(model: nn.Module) -> dict[str, Any]:
    lora = import_peft("--train lora").tuners.lora
    return {name: module for name, module in model.named_modules() if isinstance(module, lora.LoraLayer)}
