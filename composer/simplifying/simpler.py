"""A model with simpler parts, in closed form: no step is taken."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..composing.refit import sweep
from ..models.folder import BaseModel
from .activation import in_configuration, with_activation
from .norms import Fitted, fitting, norms_of

if TYPE_CHECKING:
    from torch import nn

    from ..tasks.task import Examples, Task
    from ..tensors.masks import Masks


@dataclass(frozen=True)
class Simpler:
    """A model with simpler parts, and how near each norm was met."""

    model: nn.Module
    norms: tuple[Fitted, ...]


def simpler(
    folder: BaseModel,
    base: nn.Module,
    masks: Masks,
    task: Task,
    data: Examples,
    *,
    no_norm: bool,
    activation: str | None,
    **options: Any,
) -> Simpler:
    """A copy of ``base`` whose parts are simpler, and whose other weights make up for it.

    Args:
        folder: where ``base`` was loaded from.
        masks: keep-masks by parameter name, of what is held at 0.
        data: where the calibration sample is drawn from.
        no_norm: norms become a scale and a shift (:mod:`.norms`).
        activation: what stands for the model's own; None leaves it.
        options: keywords of :func:`composer.composing.refit.sweep`: the sample's ``size`` and what else shapes it.

    Raises:
        ModelError: there are no norms, or the configuration names no activation.
    """
    layout = folder.layout
    config = with_activation(folder, activation) if activation else folder.config
    model = in_configuration(copy.deepcopy(base), config)
    norms = norms_of(model, layout, folder.name) if no_norm else {}
    with fitting(model, base, norms, layout) as (further, fitted):
        sweep(model, base, layout, masks, task, data, further=further, **options)
    return Simpler(model, tuple(fitted))
