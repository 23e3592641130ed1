"""Prune: every variant of every target, each once, into a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import masks
from ..criteria.criterion import Criterion
from ..gram import Gram
from ..granularity import keep_by_rank
from ..layout import Layout, Target
from ..library import Library, address_of
from ..progress import SILENT, Progress
from ..scheme import Node, Scheme

if TYPE_CHECKING:
    from torch import Tensor, nn


def pruned_lineage(node: Node, fingerprint: str, criterion: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines a pruned variant's bytes."""
    return {"stage": "pruned", "node": node.hash, "base": fingerprint, "criterion": dict(criterion)}


def prune(
    model: nn.Module,
    layout: Layout,
    scheme: Scheme,
    criterion: Criterion,
    library: Library,
    *,
    settings: Mapping[str, Any] | None = None,
    grams: Callable[[], Mapping[str, Gram]] | None = None,
    progress: Progress = SILENT,
) -> dict[str, str]:
    """Store every leaf of ``scheme`` that the library lacks; returns node hash -> address.

    A target's units are scored once, whatever the number of its rates.

    Args:
        settings: what identifies the criterion's statistics (calibration sample, data digest).
        grams: gathers the moments of every projection's input; called once, when a variant is missing and the
            criterion needs them.
    """
    leaves = scheme.at("module")
    told = {"name": criterion.name, **(settings or {})}
    lineages = {n.hash: pruned_lineage(n, scheme.fingerprint, told) for n in leaves}
    addresses = {name: address_of(lineage) for name, lineage in lineages.items()}
    missing: dict[str, list[Node]] = {}
    for node in leaves:
        if addresses[node.hash] in library:
            library.verify(addresses[node.hash])
        else:
            missing.setdefault(node.path, []).append(node)
    parameters = dict(model.named_parameters())
    moments = grams() if grams and missing and "gram" in criterion.needs else {}
    with progress.bar("prune", len(missing)) as bar:
        for path, nodes in missing.items():
            target = layout.target(path)
            scores = criterion.score(
                target, projection_weights(target, parameters), _statistics(layout, target, parameters, moments)
            )
            for node in nodes:
                weights, keep = _pruned(target, scores, node.rates[path], parameters)
                library.put(lineages[node.hash], weights, keep)
            bar.advance(path)
    return addresses


def projection_weights(target: Target, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """A target's weight matrices as (out, in), in the order of its projections."""
    return [p.of(parameters[p.weight].detach()) for p in target.projections]


def _statistics(
    layout: Layout, target: Target, parameters: Mapping[str, Tensor], moments: Mapping[str, Gram]
) -> dict[str, Any]:
    """The moments that a criterion sees for one target; see :data:`composer.criteria.criterion.Stats`."""
    if not moments:
        return {}
    stats: dict[str, Any] = {"gram": [moments[p.path] for p in target.projections]}
    if target.kind == "attention":
        out = layout.out_projection(target.path)
        stats["out"] = (out.of(parameters[out.weight].detach()), moments[out.path])
    return stats


def _pruned(
    target: Target, scores: Tensor, rate: float, parameters: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    keep = masks.expand(target, keep_by_rank(scores, rate))
    names = [n for p in target.projections for n in (p.weight, f"{p.path}.bias") if n in parameters]
    weights = {name: parameters[name].detach().clone() for name in names}
    masks.apply(weights, keep)
    return weights, keep
