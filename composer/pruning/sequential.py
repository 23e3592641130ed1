"""Calibration as published: each layer is pruned by what it reads once the layers before it are pruned.

What a target sees then depends on everything before it, so nothing is shared between configurations: a scheme of one
configuration is all that can be pruned this way. The base model's inputs (the default) serve any number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..library.store import Library
from ..scheme.graph import Scheme
from ..scheme.layout import Layout
from .criteria.criterion import Criterion

if TYPE_CHECKING:
    from torch import nn

    from ..calibration.sample import Calibration


def check_sequential(scheme: Scheme, criteria: Iterable[Criterion]) -> None:
    """Refuse what cannot be calibrated layer by layer.

    Raises:
        RecipeError: several configurations, criteria that look at no inputs, criteria that look at gradients.
    """
    problems = []
    criteria = list(criteria)
    if (several := len(set(scheme.roots))) > 1:
        problems.append(f"got a scheme of {several} configurations, which share variants; allowed: a scheme of one")
    if not any("gram" in criterion.needs for criterion in criteria):
        problems.append(f"no criterion looks at inputs ({', '.join(c.name for c in criteria)}); allowed: base")
    if any(how.get("granularity") == "stack-head" for n in scheme.at("module") for how in n.choices.values()):
        problems.append("granularity 'stack-head' ranks heads over all layers at once; allowed: base")
    problems += [
        f"criterion {criterion.name!r} looks at the base model's gradients; allowed: base"
        for criterion in criteria
        if criterion.needs & {"gradient", "loss_gram", "movement"}
    ]
    if problems:
        raise RecipeError([f"--calibration sequential: {problem}" for problem in problems])


def prune_in_order(
    model: nn.Module,
    layout: Layout,
    scheme: Scheme,
    criterion: Criterion,
    library: Library,
    *,
    calibrate: Callable[[Layout], Calibration],
    **options: Any,
) -> dict[str, str]:
    """Store every leaf of ``scheme`` (and what else is stored), layer by layer; returns node hash -> address.

    As in the code published with SparseGPT and Wanda, the inputs of all targets of a layer are taken while the layer
    itself is dense. One pass of the whole model for each layer with something to prune.

    Args:
        model: the base model; it ends up pruned.
        calibrate: the sample as a part of the layout sees it in the model as it is then.
        options: the further ones of :func:`composer.pruning.variants.prune`.
    """
    from .variants import prune

    addresses: dict[str, str] = {}
    for inside in _layers(layout):
        nodes = {n.hash: n for level in ("module", "sublayer") for n in scheme.at(level) if inside.issuperset(n.rates)}
        if not nodes:
            continue
        # The sample looks at this layer's inputs only, and pruning at this layer's nodes only.
        here = replace(layout, targets=tuple(t for t in layout.targets if t.path in inside))
        stored = prune(
            model,
            layout,
            replace(scheme, nodes=nodes),
            criterion,
            library,
            calibration=partial(calibrate, here),
            **options,
        )
        # What later layers read depends on this one as it is pruned. Sublayers come last in what was stored: where
        # their masks follow from heads, they replace those of the leaf.
        for address in stored.values():
            _copy_weights(model, library, address)
        addresses |= stored
    return addresses


def _layers(layout: Layout) -> list[set[str]]:
    """Targets of each layer, in execution order; a target of no layer is by itself."""
    layers = [set(block.targets) for block in layout.at("layer")]
    loose = [{path} for path in layout.paths if not any(path in inside for inside in layers)]
    position = {path: i for i, path in enumerate(layout.paths)}
    return sorted(layers + loose, key=lambda inside: min(position[path] for path in inside))


def _copy_weights(model: nn.Module, library: Library, address: str) -> None:
    """Put the weights that are stored at ``address`` into the model."""
    from ..tensors.parameters import parameters_of, set_values

    set_values(parameters_of(model), library.get(address).weights)
