"""What a criterion sees of a target: which statistics are gathered for it, and how they are handed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..scheme.layout import Layout, Projection, Target
from ..scheme.shapes import Shape
from .cut import weight_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..calibration.gradients import Gradients
    from ..calibration.gram import Gram


def inputs_of(layout: Layout, path: str, shape: Shape) -> list[str]:
    """Projections whose moments a criterion may look at for the target at ``path``, cut in this shape."""
    paths: dict[str, None] = {}
    for part in shape.parts(layout, path):
        out = [layout.out_projection(part.path).path] if part.kind == "attention" else []
        paths |= dict.fromkeys([*(p.path for p in part.projections), *out])
    return list(paths)


def reader_of(layout: Layout, part: Target) -> Projection:
    """The projection that reads a target's heads or neurons; of another target its own last one."""
    return layout.out_projection(part.path) if part.kind == "attention" else part.projections[-1]


def statistics_of(
    layout: Layout,
    part: Target,
    parameters: Mapping[str, Tensor],
    moments: Mapping[str, Gram],
    gradients: Gradients | None,
    seed: int | None,
    movement: Mapping[Projection, Tensor] | None = None,
    loss_moments: Mapping[str, Gram] | None = None,
) -> dict[str, Any]:
    """What a criterion sees of one part of a target; see :data:`composer.pruning.criteria.criterion.Stats`.

    Args:
        moments: by the path of the projection that reads the input; empty where none were gathered.
        loss_moments: the same, of :func:`reader_of`; None where none were.
    """
    more: dict[str, Any] = {} if seed is None else {"seed": seed}
    if loss_moments:
        reader = reader_of(layout, part)
        more["loss_gram"] = (weight_of(reader, parameters), loss_moments[reader.path])
    if movement:
        more["movement"] = [movement[p].to(parameters[p.weight].device) for p in part.projections]
    return {**_moments(layout, part, parameters, moments), **_gradients(part, parameters, gradients), **more}


def _moments(
    layout: Layout, part: Target, parameters: Mapping[str, Tensor], moments: Mapping[str, Gram]
) -> dict[str, Any]:
    if not moments:
        return {}
    stats: dict[str, Any] = {"gram": [moments[p.path] for p in part.projections]}
    if part.kind == "attention":
        out = layout.out_projection(part.path)
        stats["out"] = (weight_of(out, parameters), moments[out.path])
    return stats


def _gradients(part: Target, parameters: Mapping[str, Tensor], gradients: Gradients | None) -> dict[str, Any]:
    if not gradients:
        return {}
    device = parameters[part.projections[0].weight].device
    stats: dict[str, Any] = {"gradient": [gradients.weights[p].to(device) for p in part.projections]}
    return stats if part.kind == "linear" else {**stats, "gates": gradients.gates[part.path].to(device)}
