"""A base model with fewer heads and neurons, in memory, to be timed: its answers mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..models import modeling_shrunk
from ..models.folder import BaseModel
from ..models.shapes import KEY, Shapes
from ..models.storage import auto_map
from ..shrinking.in_memory import narrowed
from ..shrinking.units import Units, following, shapes_left
from .loaded import Loaded


class SmallerModels:
    """Makes models of any widths out of one; they share all weights that are not cut, so many fit into memory."""

    def __init__(self, base: BaseModel, units: Sequence[Units], device: str) -> None:
        """The base model is loaded.

        Raises:
            InputError: a model of another library.
        """
        if base.storage.library != "transformers":
            raise InputError(f"{base.name}: is a model of {base.storage.library}; models of transformers can be timed")
        self.base, self.units, self.device = base, units, torch.device(device)
        self.whole: Any = base.load(cache=True).to(self.device)

    def shapes(self, kept: Mapping[str, int]) -> Shapes:
        """The shapes with so many units left, by path."""
        left = [(units, range(kept[units.path])) for units in self.units]
        return shapes_left(left, self._following)

    def _following(self, units: Units) -> list[str]:
        """Paths of further projections of an attention that lose the same rows."""
        follow = self.base.family.followers if self.base.family else ()
        return following(units, follow, lambda path: modeling_shrunk.place(self.whole, path) is not None)

    def loaded(self, kept: Mapping[str, int]) -> Loaded:
        """A model in PyTorch with so many units left, by path."""
        model = narrowed(self.whole, self.shapes(kept))
        return Loaded(self.base, model.eval(), self.device, model)

    def save(self, kept: Mapping[str, int], folder: Path) -> BaseModel:
        """The same as a folder, for other runtimes."""
        model, shapes = self.loaded(kept).model, self.shapes(kept)
        config = {**self.base.config, KEY: shapes.as_json()} if shapes else dict(self.base.config)
        if shapes:
            setattr(model.config, KEY, shapes.as_json())
            config["auto_map"] = auto_map(config)
        self.base.storage.save(model, folder, self.base.folder, config)
        return BaseModel(folder)

    def everywhere(self, part: float) -> dict[str, int]:
        """The same part of every attention and feed-forward."""
        return {units.path: round(part * units.count) for units in self.units}
