"""Masked models made by hand: whole heads, neurons, sublayers and layers set to zero in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from composer.models.folder import BaseModel
from composer.shrinking.units import Units, units_of

Choose = Callable[[int, Units], Sequence[int]]
"""Place of some units and the units -> those that go."""


def masked_folder(source: Path, folder: Path, choose: Choose, *, biases: bool = True) -> BaseModel:
    """A copy of a model without the chosen units: their rows are 0, with ``biases`` their biases too.

    Of an attention without biases only the value rows are 0: nothing else of a head tells.
    """
    base = BaseModel(source)
    model = base.load()
    parameters = dict(model.named_parameters())
    for i, units in enumerate(units_of(base.layout)):
        gone = torch.tensor(list(choose(i, units)), dtype=torch.long)
        _zero(units, gone, parameters, biases=biases)
    folder.mkdir()
    base.save(model, folder)
    return BaseModel(folder)


def _zero(units: Units, gone: Tensor, parameters: dict[str, nn.Parameter], *, biases: bool) -> None:
    chosen = units.first if biases or units.kind == "feed_forward" else units.first[2:]
    for p in chosen:
        size = units.rows(p)
        lines = (gone[:, None] * size + torch.arange(size)).flatten()
        p.of(parameters[p.weight].data)[lines] = 0
        if biases and p.bias_name:
            p.bias_of(parameters[p.bias_name].data)[lines] = 0
