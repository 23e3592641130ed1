"""Prune: every variant of every target, each once, into a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..criteria.choice import criterion_of, lineage_of
from ..criteria.criterion import Criterion
from ..cutting import Cut, weight_of
from ..gram import Gram
from ..layout import Layout, Target
from ..library import Library, address_of
from ..progress import SILENT, Progress
from ..scheme import Node, Scheme
from ..shapes import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..gradients import Slopes


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
    gradients: Callable[[], Slopes] | None = None,
    progress: Progress = SILENT,
) -> dict[str, str]:
    """Store every leaf of ``scheme`` that the library lacks; returns node hash -> address.

    A target's units are scored once for each criterion and shape, whatever the number of its rates.

    Args:
        criterion: of the nodes that name none.
        settings: what identifies the criteria's statistics (calibration sample, data digest; seed of those that draw).
        grams: gathers the moments of every projection's input; called once, when a variant is missing and its
            criterion needs them.
        gradients: gathers the loss's gradients, likewise.
    """
    leaves = scheme.at("module")
    criteria = {n.hash: criterion_of(n, n.path, criterion) for n in leaves}
    told = {name: lineage_of(one, settings or {}) for name, one in criteria.items()}
    lineages = {n.hash: pruned_lineage(n, scheme.fingerprint, told[n.hash]) for n in leaves}
    addresses = {name: address_of(lineage) for name, lineage in lineages.items()}
    missing: dict[str, list[Node]] = {}
    for node in leaves:
        if addresses[node.hash] in library:
            library.verify(addresses[node.hash])
        else:
            missing.setdefault(node.path, []).append(node)
    parameters = dict(model.named_parameters())
    needs = {need for nodes in missing.values() for n in nodes for need in criteria[n.hash].needs}
    moments = grams() if grams and "gram" in needs else {}
    slopes = gradients() if gradients and "gradient" in needs else None
    drawn = {"seed": (settings or {}).get("seed", 0)}

    def statistics(part: Target) -> dict[str, Any]:
        return {**_statistics(layout, part, parameters, moments), **_slopes(part, parameters, slopes), **drawn}

    with progress.bar("prune", len(missing)) as bar:
        for path, nodes in missing.items():
            cuts: dict[tuple[str, Shape], Cut] = {}
            for node in nodes:
                key = criteria[node.hash].name, node.shape(layout.target(path))
                if key not in cuts:
                    cuts[key] = Cut(layout, path, key[1], criteria[node.hash], parameters, statistics)
                library.put(lineages[node.hash], *cuts[key].at(node.rates[path]))
            bar.advance(path)
    return addresses


def _statistics(
    layout: Layout, target: Target, parameters: Mapping[str, Tensor], moments: Mapping[str, Gram]
) -> dict[str, Any]:
    """The moments that a criterion sees for one target; see :data:`composer.criteria.criterion.Stats`."""
    if not moments:
        return {}
    stats: dict[str, Any] = {"gram": [moments[p.path] for p in target.projections]}
    if target.kind == "attention":
        out = layout.out_projection(target.path)
        stats["out"] = (weight_of(out, parameters), moments[out.path])
    return stats


def _slopes(target: Target, parameters: Mapping[str, Tensor], slopes: Slopes | None) -> dict[str, Any]:
    """The gradients that a criterion sees for one target, likewise."""
    if not slopes:
        return {}
    device = parameters[target.projections[0].weight].device
    stats: dict[str, Any] = {"gradient": [slopes.weights[p.path].to(device) for p in target.projections]}
    return stats if target.kind == "linear" else {**stats, "gates": slopes.gates[target.path].to(device)}
