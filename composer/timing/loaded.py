"""A model in a runtime, ready to be timed: a pass, and a number of new tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..models.folder import BaseModel
from .clock import Work
from .inputs import batch_of, check_length, generation
from .macs import macs

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Loaded:
    """A model that answers like one of transformers, on a device.

    ``counted`` is the same model in PyTorch, in which multiply-accumulates can be counted; None where there is none.
    """

    base: BaseModel
    model: Any
    device: torch.device
    counted: Any = None

    @classmethod
    def torch(cls, base: BaseModel, device: torch.device, *, compiled: bool = False) -> Loaded:
        """In PyTorch, as it is or compiled (which happens when it is first run).

        Raises:
            InputError: a model of another library.
        """
        if base.storage.library != "transformers":
            raise InputError(f"{base.name}: is a model of {base.storage.library}; models of transformers can be timed")
        model: Any = base.load().to(device)
        counted = model
        if compiled:
            import copy

            import torch

            counted = copy.copy(model)  # the same weights
            model.forward = torch.compile(model.forward)
        return cls(base, model, device, counted)

    @classmethod
    def exported(cls, export: BaseModel, of: BaseModel | None = None) -> Loaded:
        """In another runtime; ``of`` is the model that it was made from, where that is at hand to count in."""
        import torch

        return cls(export, export.load(), torch.device("cpu"), of.load() if of else None)

    @property
    def generates(self) -> bool:
        """Whether it makes new tokens."""
        can = getattr(self.model, "can_generate", None)
        return bool(can and can())

    def batch(self, batch_size: int, length: int, new_tokens: int) -> dict[str, Tensor]:
        """Random tokens of this shape on the device.

        Raises:
            InputError: longer than the model reads.
        """
        config = self.base.config
        check_length(config, length, new_tokens if self.generates else 0, self.base.name)
        batch = batch_of(config, batch_size, length)
        if (
            config.get("is_encoder_decoder")
            and not self.generates
            and "Classification" not in type(self.model).__name__
        ):
            batch["decoder_input_ids"] = batch["input_ids"]
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def forward(self, batch: Mapping[str, Tensor]) -> Work:
        """A pass over the batch."""
        return lambda: self._run(self.model, **batch)

    def generate(self, batch: Mapping[str, Tensor], tokens: int) -> Work:
        """So many new tokens for each text of the batch, by greedy search with a cache."""
        settings = generation(self.model, tokens)
        return lambda: self._run(self.model.generate, **batch, generation_config=settings)

    def macs(self, batch: Mapping[str, Tensor], tokens: int = 0) -> int | None:
        """Multiply-accumulates of a pass over the batch, or of making so many new tokens; None where not countable."""
        if self.counted is None:
            return None
        same = replace(self, model=self.counted)
        return macs(same.generate(batch, tokens) if tokens else same.forward(batch))

    @staticmethod
    def _run(work: Any, **inputs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return work(**inputs)
