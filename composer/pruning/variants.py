"""Prune: every variant of every target, each once, into a library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..calibration.gram import Gram
from ..calibration.sample import Calibration
from ..library.store import Library, address_of
from ..progress import SILENT, Progress
from ..scheme.graph import Node, Scheme
from ..scheme.layout import Layout, Target
from ..scheme.shapes import Shape, default_shape
from ..tensors import masks
from .addresses import scored_target, variant_lineages
from .criteria.choice import criterion_of, identity_of
from .criteria.criterion import Criterion, moves_weights
from .cut import Cut, weight_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..calibration.gradients import Slopes


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

    A target's units are scored once for each criterion and shape, whatever the number of its rates.

    Args:
        criterion: of the nodes that name none.
        settings: what identifies the criteria's statistics (calibration sample, data digest; seed of those that draw).
        calibration: gives the moments of every projection's input and the loss's gradients; called once, when a
            variant is missing and its criterion needs them.
        dead_columns: in an attention sublayer of the scheme the out-projection's weights go first in the columns of
            removed heads, which read nothing but zeros; the count stays. Such a sublayer is stored too.
    """
    nodes = scheme.pruned_nodes(layout, dead_columns=dead_columns)
    ways = {n.hash: _Way.of(n, layout, criterion, settings or {}) for n in nodes}
    lineages = variant_lineages(scheme, layout, criterion, settings or {}, dead_columns=dead_columns)
    addresses = {name: address_of(lineage) for name, lineage in lineages.items()}
    missing = _missing(nodes, addresses, library, layout)
    parameters = dict(model.named_parameters())
    wanted = {path: {ways[n.hash].key: ways[n.hash] for n in some}.values() for path, some in missing.items()}
    source = _Source(layout, parameters, calibration, _Shelf(library, scheme.fingerprint), (settings or {}).get("seed"))
    with progress.bar("prune", len(missing)) as bar:
        for path, cuts in source.cuts(wanted):
            for node in missing[path]:
                cut = cuts[ways[node.hash].key]
                if node.level == "module":
                    weights, keep = cut.at(node.rates[path])
                else:
                    heads = library.get(addresses[node.children[0]])
                    dead = ~masks.live_columns(node.heads_before(layout), layout.target(path), heads.masks)
                    weights, keep = cut.at(node.rates[path], dead)
                    weights, keep = heads.weights | weights, heads.masks | keep
                library.put(lineages[node.hash], weights, keep)
            bar.advance(path)
    return addresses


@dataclass(frozen=True, eq=False)
class _Way:
    """How the target that is scored for a node is pruned; ``identity`` is the criterion's, with its statistics."""

    path: str
    criterion: Criterion
    shape: Shape
    identity: Mapping[str, Any]

    @classmethod
    def of(cls, node: Node, layout: Layout, default: Criterion, settings: Mapping[str, Any]) -> _Way:
        path = scored_target(node)
        criterion = criterion_of(node, path, default)
        return cls(path, criterion, node.shape(layout.target(path)), identity_of(criterion, settings))

    @property
    def key(self) -> tuple[str, Shape]:
        return self.criterion.name, self.shape


def _missing(
    nodes: Sequence[Node], addresses: Mapping[str, str], library: Library, layout: Layout
) -> dict[str, list[Node]]:
    """What has to be made, by the path of the target that is scored for it, in execution order."""
    found: dict[str, list[Node]] = {path: [] for path in layout.paths}
    for node in nodes:
        if addresses[node.hash] in library:
            library.verify(addresses[node.hash])
        else:
            found[scored_target(node)].append(node)
    return {path: some for path, some in found.items() if some}


@dataclass(frozen=True)
class _Shelf:
    """Where scores that took statistics are kept: another rate later costs no second selection."""

    library: Library
    fingerprint: str

    def lineage(self, way: _Way, default: bool) -> dict[str, Any]:
        own = {} if default else {"granularity": str(way.shape)}
        return {"stage": "scores", "target": way.path, "base": self.fingerprint, "criterion": way.identity, **own}

    def get(self, way: _Way, default: bool) -> list[Tensor] | None:
        address = address_of(self.lineage(way, default))
        if address not in self.library:
            return None
        held = self.library.get(address).weights
        return [held[name] for name in sorted(held)]

    def put(self, way: _Way, default: bool, scores: Sequence[Tensor]) -> None:
        names = ["scores", *(f"scores.{i}" for i in range(1, len(scores)))]
        self.library.put(self.lineage(way, default), dict(zip(names, scores, strict=True)), {})


@dataclass(frozen=True)
class _Source:
    """Makes the cuts of one target after the other, from scores that are kept or from statistics."""

    layout: Layout
    parameters: Mapping[str, Tensor]
    calibration: Callable[[], Calibration] | None
    shelf: _Shelf
    seed: int | None

    def cuts(self, wanted: Mapping[str, Iterable[_Way]]) -> Iterator[tuple[str, dict[tuple[str, Shape], Cut]]]:
        """For each path its cuts, in execution order, by criterion and shape."""
        kept = {way: scores for some in wanted.values() for way in some if (scores := self._kept(way)) is not None}
        fresh = {path: [way for way in some if way not in kept] for path, some in wanted.items()}
        wants = {path: self._inputs(some) for path, some in fresh.items() if self._needs(some, "gram")}
        moments = self.calibration().moments(wants) if wants and self.calibration else iter(())
        sloped = self.calibration and any(self._needs(some, "gradient") for some in fresh.values())
        slopes = self.calibration().slopes() if sloped and self.calibration else None
        for path, some in wanted.items():
            grams = next(moments)[1] if path in wants and self.calibration else {}
            made = {}
            for way in some:
                made[way.key] = cut = self._cut(way, grams, slopes)
                if way in kept:
                    cut.scores = kept[way]
                elif self._shelved(way):
                    self.shelf.put(way, self._is_default(way), cut.scores)
            yield path, made

    def _cut(self, way: _Way, grams: Mapping[str, Gram], slopes: Slopes | None) -> Cut:
        def statistics(part: Target) -> dict[str, Any]:
            return statistics_of(self.layout, part, self.parameters, grams, slopes, self.seed)

        return Cut(self.layout, way.path, way.shape, way.criterion, self.parameters, statistics)

    def _kept(self, way: _Way) -> list[Tensor] | None:
        return self.shelf.get(way, self._is_default(way)) if self._shelved(way) else None

    def _shelved(self, way: _Way) -> bool:
        """Whether scores are there to be kept: they took a pass, and they are scores."""
        took = self._needs([way], "gram") or self._needs([way], "gradient")
        return self.calibration is not None and took and not moves_weights(way.criterion)

    def _is_default(self, way: _Way) -> bool:
        return way.shape == default_shape(self.layout.target(way.path))

    def _inputs(self, some: Iterable[_Way]) -> list[str]:
        """Projections whose moments a target's criteria may look at."""
        return list(dict.fromkeys(path for way in some for path in inputs_of(self.layout, way.path, way.shape)))

    @staticmethod
    def _needs(some: Iterable[_Way], statistic: str) -> bool:
        return any(statistic in way.criterion.needs for way in some)


def inputs_of(layout: Layout, path: str, shape: Shape) -> list[str]:
    """Projections whose moments a criterion may look at for the target at ``path``, cut in this shape."""
    found: dict[str, None] = {}
    for part in shape.parts(layout, path):
        out = [layout.out_projection(part.path).path] if part.kind == "attention" else []
        found |= dict.fromkeys([*(p.path for p in part.projections), *out])
    return list(found)


def statistics_of(
    layout: Layout,
    part: Target,
    parameters: Mapping[str, Tensor],
    moments: Mapping[str, Gram],
    slopes: Slopes | None,
    seed: int | None,
) -> dict[str, Any]:
    """What a criterion sees of one part of a target; see :data:`composer.pruning.criteria.criterion.Stats`."""
    drawn = {} if seed is None else {"seed": seed}
    return {**_moments(layout, part, parameters, moments), **_slopes(part, parameters, slopes), **drawn}


def _moments(
    layout: Layout, target: Target, parameters: Mapping[str, Tensor], moments: Mapping[str, Gram]
) -> dict[str, Any]:
    """The moments that a criterion sees for one target; see :data:`composer.pruning.criteria.criterion.Stats`."""
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
    stats: dict[str, Any] = {"gradient": [slopes.weights[p].to(device) for p in target.projections]}
    return stats if target.kind == "linear" else {**stats, "gates": slopes.gates[target.path].to(device)}
