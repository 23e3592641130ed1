"""Prune: every variant of every target, each once, into a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..calibration.sample import Calibration
from ..library.store import Library, address_of
from ..progress import SILENT, Progress
from ..scheme.graph import Node, Scheme
from ..scheme.layout import Layout
from ..scheme.shapes import default_shape
from .addresses import scored_target, variant_lineages
from .configuration import PrunedTargets
from .criteria.choice import identity_of
from .criteria.criterion import SAMPLED, Criterion, moves_weights
from .cutter import Cutter, Selection

if TYPE_CHECKING:
    from torch import Tensor, nn


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
        calibration: gives the moments of every projection's input and the loss's gradients; called only when a
            variant is missing and its criterion needs them.
        dead_columns: in an attention sublayer of the scheme the out-projection's weights go first in the columns of
            removed heads, which read nothing but zeros; the count stays. Such a sublayer is stored too.
    """
    settings = settings or {}
    lineages = variant_lineages(scheme, layout, criterion, settings, dead_columns=dead_columns)
    addresses = {name: address_of(lineage) for name, lineage in lineages.items()}
    missing = _missing([scheme.nodes[name] for name in lineages], addresses, library, layout)
    selections = {
        node.hash: Selection.of(layout, path, node.choices.get(path, {}), criterion)
        for path, nodes in missing.items()
        for node in nodes
    }
    # Of variants that differ in their rates alone one stands for all.
    groups = {
        path: list({selections[n.hash].key: selections[n.hash] for n in nodes}.values())
        for path, nodes in missing.items()
    }
    scores = StoredScores(library, layout, scheme.fingerprint, settings)
    cutter = Cutter(layout, dict(model.named_parameters()), calibration, scores, settings.get("seed"))
    with progress.bar("prune", len(missing)) as bar:
        for path, cuts, _ in cutter.cuts(groups):
            for node in missing[path]:
                pruned = PrunedTargets(layout, dead_columns=dead_columns)
                if heads := node.heads_before(layout):
                    # A leaf by itself, stored before: sublayers come after all leaves, and paths in execution order.
                    leaf = library.get(addresses[node.children[0]])
                    pruned.add(heads, node.shape(heads), (leaf.weights, leaf.masks))
                pruned.cut(cuts[selections[node.hash].key], node.rates[path])
                library.put(lineages[node.hash], pruned.weights, pruned.masks)
            bar.advance(path)
    return addresses


def _missing(
    nodes: Sequence[Node], addresses: Mapping[str, str], library: Library, layout: Layout
) -> dict[str, list[Node]]:
    """What has to be made, by the path of the target that is scored for it, in execution order."""
    missing: dict[str, list[Node]] = {path: [] for path in layout.paths}
    for node in nodes:
        if addresses[node.hash] in library:
            library.verify(addresses[node.hash])
        else:
            missing[scored_target(node)].append(node)
    return {path: nodes for path, nodes in missing.items() if nodes}


@dataclass(frozen=True)
class StoredScores:
    """Scores in the library beside the variants: those that took a pass over data (:class:`.cutter.Scores`)."""

    library: Library
    layout: Layout
    fingerprint: str
    settings: Mapping[str, Any]

    def lineage(self, selection: Selection) -> dict[str, Any]:
        """Everything that determines the scores; a granularity only where it is not the target's default."""
        default = selection.shape == default_shape(self.layout.target(selection.path))
        return {
            "stage": "scores",
            "target": selection.path,
            "base": self.fingerprint,
            "criterion": identity_of(selection.criterion, self.settings),
            **({} if default else {"granularity": str(selection.shape)}),
        }

    def keeps(self, selection: Selection) -> bool:
        """Scores that took a pass; others are made again sooner than they are read."""
        took_a_pass = any(selection.needs(name) for name in (*SAMPLED, "movement"))
        return took_a_pass and not moves_weights(selection.criterion)

    def holds(self, selection: Selection) -> bool:
        """Whether they are stored."""
        return self.keeps(selection) and address_of(self.lineage(selection)) in self.library

    def get(self, selection: Selection) -> list[Tensor]:
        """Read them."""
        stored = self.library.get(address_of(self.lineage(selection))).weights
        return [stored[name] for name in sorted(stored)]

    def put(self, selection: Selection, scores: Sequence[Tensor]) -> None:
        """Store them."""
        names = ["scores", *(f"scores.{i}" for i in range(1, len(scores)))]
        self.library.put(self.lineage(selection), dict(zip(names, scores, strict=True)), {})
