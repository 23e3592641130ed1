"""A masked model as the small one that it shrinks to, in memory for a while: the same answers in less time."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from ..models import modeling_shrunk
from ..models.folder import BaseModel
from ..models.shapes import Shapes, needs_code
from ..models.storage import HuggingFace
from .plan import activation_of
from .units import Units, following, shapes_left, units_of
from .weights import Cuts
from .zeros import find


def narrowed(model: nn.Module, shapes: Shapes) -> nn.Module:
    """A copy with these shapes, whose cut parameters mean nothing yet; all others it shares with ``model``."""
    # Parameters are shared, modules are not: those that are cut get new parameters.
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    made = copy.deepcopy(model, shared)
    modeling_shrunk.cut(made, shapes.as_json())
    return made


class SmallModels:
    """Makes small models of one base model in memory. They share with it all weights that are as they were in it."""

    def __init__(self, model: nn.Module, base: BaseModel) -> None:
        """Nothing is made yet; ``model`` is ``base``, loaded, and is not changed."""
        self.model, self.parameters = model, dict(model.named_parameters())
        self._units = list(units_of(base.layout)) if _serves(model, base) else []
        self._followers = base.family.followers if base.family else ()
        self._activation = activation_of(base) if self._units else None

    def made(self, weights: Mapping[str, Tensor]) -> nn.Module | None:
        """The model with these weights, by parameter name, without the heads and neurons that are zero in them.

        None where there is nothing to take out, or it cannot be: of models of other packages, or that are cut already,
        and such whose modules share weights.
        """
        changed = [units for units in self._units if any(p.weight in weights for p in units.projections)]
        values: dict[str, Tensor] = {**self.parameters, **weights}
        found = [(units, find(units, lambda name: values[name].detach(), self._activation)) for units in changed]
        if all(len(own.kept) == units.count for units, own in found):
            return None
        cuts = Cuts()
        for units, own in found:
            cuts.take(units, own, self, self._followers)
        shapes = shapes_left([(u, own.kept) for u, own in found], lambda u: self.following(u, self._followers))
        made = narrowed(self.model, shapes)
        for name in {**weights, **dict.fromkeys(cuts.by_name)}:
            cut = cuts.by_name.get(name)
            value = values[name].detach()
            _put(made, name, cut.of(value) if cut else value)
        return made

    def stored(self, name: str) -> str:
        """In memory parameters have their own names (:class:`.weights.Names`)."""
        return name

    def following(self, units: Units, followers: Sequence[str]) -> list[str]:
        """Paths of the further projections of an attention that are there and have the query's rows."""
        return following(units, followers, lambda path: f"{path}.weight" in self.parameters)


def _serves(model: nn.Module, base: BaseModel) -> bool:
    """Whether small models of it can be made in memory; on other devices than the processor they gain little."""
    held = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    names = {name for units in units_of(base.layout) for p in units.projections for name in p.parameters}
    return (
        isinstance(base.storage, HuggingFace)
        and not needs_code(base.config)
        and all(p.device.type == "cpu" for p in model.parameters())
        and all(held[id(p)] == 1 for name, p in model.named_parameters() if name in names)
    )


def _put(model: nn.Module, name: str, value: Tensor) -> None:
    """A parameter of ``model``, not of the models that share it; nothing where its module has it no more."""
    path, _, own = name.rpartition(".")
    module: Any = model.get_submodule(path)
    if getattr(module, own, None) is not None:
        setattr(module, own, nn.Parameter(value, requires_grad=False))
