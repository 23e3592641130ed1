"""Prune: every variant of every target, each once, into a library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import masks
from ..calibration import Calibration
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
    calibration: Callable[[], Calibration] | None = None,
    dead_columns: bool = False,
    progress: Progress = SILENT,
) -> dict[str, str]:
    """Store every leaf of ``scheme`` that the library lacks; returns node hash -> address.

    A target's units are scored once, whatever the number of its rates.

    Args:
        settings: what identifies the criterion's statistics (calibration sample, data digest).
        calibration: gives the moments of every projection's input; called once, when a variant is missing and the
            criterion needs them.
        dead_columns: in an attention sublayer of the scheme the out-projection's weights go first in the columns of
            removed heads, which read nothing but zeros; the count stays. Such a sublayer is stored too.
    """
    nodes = scheme.at("module") + [n for n in scheme.at("sublayer") if dead_columns and _heads_before(n, layout)]
    told = {"name": criterion.name, **(settings or {})}
    lineages = {n.hash: pruned_lineage(n, scheme.fingerprint, told) for n in nodes}
    addresses = {name: address_of(lineage) for name, lineage in lineages.items()}
    missing = _missing(nodes, addresses, library, layout)
    parameters = dict(model.named_parameters())
    with progress.bar("prune", len(missing)) as bar:
        for path, scores in _scored(
            layout, list(missing), criterion, parameters, calibration, _Shelf(library, scheme.fingerprint, told)
        ):
            target = layout.target(path)
            for node in missing[path]:
                if node.level == "module":
                    weights, keep = _pruned(target, scores, node.rates[path], parameters)
                else:
                    heads = library.get(addresses[node.children[0]])
                    dead = ~masks.live_columns(_heads_before(node, layout), target, heads.masks).to(scores.device)
                    spent = scores.masked_fill(dead, -math.inf)
                    weights, keep = _pruned(target, spent, node.rates[path], parameters)
                    weights, keep = heads.weights | weights, heads.masks | keep
                library.put(lineages[node.hash], weights, keep)
            bar.advance(path)
    return addresses


def _heads_before(node: Node, layout: Layout) -> Target | None:
    """The pruned attention target before the pruned out-projection of a sublayer; None where it is not that."""
    targets = [layout.target(path) for path in node.rates]
    return targets[0] if [target.kind for target in targets] == ["attention", "linear"] else None


def _missing(
    nodes: Sequence[Node], addresses: Mapping[str, str], library: Library, layout: Layout
) -> dict[str, list[Node]]:
    """What has to be made, by the path of the target that is scored for it, in execution order."""
    found: dict[str, list[Node]] = {path: [] for path in layout.paths}
    for node in nodes:
        if addresses[node.hash] in library:
            library.verify(addresses[node.hash])
        else:
            found[list(node.rates)[-1]].append(node)
    return {path: some for path, some in found.items() if some}


@dataclass(frozen=True)
class _Shelf:
    """Where scores that took statistics are kept: another rate later costs no second selection."""

    library: Library
    fingerprint: str
    criterion: Mapping[str, Any]

    def lineage(self, path: str) -> dict[str, Any]:
        return {"stage": "scores", "target": path, "base": self.fingerprint, "criterion": self.criterion}

    def get(self, path: str) -> Tensor | None:
        address = address_of(self.lineage(path))
        return self.library.get(address).weights["scores"] if address in self.library else None

    def put(self, path: str, scores: Tensor) -> None:
        self.library.put(self.lineage(path), {"scores": scores}, {})


def _scored(
    layout: Layout,
    paths: Sequence[str],
    criterion: Criterion,
    parameters: Mapping[str, Tensor],
    calibration: Callable[[], Calibration] | None,
    shelf: _Shelf,
) -> Iterator[tuple[str, Tensor]]:
    """The scores of each target, in execution order."""
    if calibration is None or not criterion.needs:
        for path in paths:
            target = layout.target(path)
            yield path, criterion.score(target, projection_weights(target, parameters), {})
        return
    kept = {path: scores for path in paths if (scores := shelf.get(path)) is not None}
    wants = {path: _wanted(layout, path) for path in paths if path not in kept}
    moments = calibration().moments(wants) if wants else iter(())
    for path in paths:
        if path not in kept:
            target = layout.target(path)
            _, grams = next(moments)
            kept[path] = criterion.score(
                target, projection_weights(target, parameters), _statistics(layout, target, parameters, grams)
            )
            shelf.put(path, kept[path])
        yield path, kept.pop(path)


def _wanted(layout: Layout, path: str) -> list[str]:
    """Projections whose moments a target's criterion may look at."""
    target = layout.target(path)
    out = [layout.out_projection(path).path] if target.kind == "attention" else []
    return [*(p.path for p in target.projections), *out]


def projection_weights(target: Target, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """A target's weight matrices as (out, in), in the order of its projections."""
    return [p.of(parameters[p.weight].detach()) for p in target.projections]


def _statistics(
    layout: Layout, target: Target, parameters: Mapping[str, Tensor], moments: Mapping[str, Gram]
) -> dict[str, Any]:
    """The moments that a criterion sees for one target; see :data:`composer.criteria.criterion.Stats`."""
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
