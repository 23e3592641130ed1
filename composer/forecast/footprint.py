"""How many bytes the work on a scheme takes, on disk and in memory: from headers and sizes, no model is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from math import prod

from ..files.safetensors import tensor_entries
from ..models.folder import BaseModel
from ..scheme.graph import Node, Scheme
from ..scheme.layout import LEVELS, Layout, Level, Projection, Target
from ..training.settings import RANK

FLOAT, DOUBLE, MASK = 4, 8, 1
BESIDE = 1500
"""Bytes of a stored block beside its tensors: the head with the lineage, checksum, seconds and losses."""
SCRATCH = 6
"""Matrices, float64, that a selection or a solve holds at once."""
EXACT = 2**24
"""Scores of a larger target are kept in float64 (see :mod:`composer.pruning.criteria.obs`)."""


class Footprint:
    """Sizes of one base model and the blocks of a scheme."""

    def __init__(self, base: BaseModel, scheme: Scheme, metric: str = "plain") -> None:
        """``metric`` says what moments know (:class:`composer.calibration.sample.Calibration`)."""
        self.layout, self.scheme, self.metric = base.layout, scheme, metric
        entries = tensor_entries(base.folder)
        self.sizes = {entry.name: entry.size for entry in entries}
        self.vectors = sum(entry.size for entry in entries if len(entry.shape) == 1)
        self.model = FLOAT * sum(self.sizes.values())
        for target in base.layout.targets:  # a checkpoint may name them otherwise
            self.sizes |= {name: size for p in target.projections for name, size in _owned(p).items()}

    def pruned(self, node: Node) -> int:
        """File of a pruned variant, or of a sublayer's own masks."""
        own = [p for part in self._parts(node) for p in part.projections]
        return FLOAT * sum({name: size for p in own for name, size in _owned(p).items()}.values()) + self._beside(node)

    def tuned(self, node: Node) -> int:
        """File of a tuned block; leaves that lose heads or neurons are copied."""
        return self.pruned(node) if node.is_whole_leaf(self.layout) else self.weights(node) + self._beside(node)

    def weights(self, node: Node) -> int:
        """All that the block owns, float32; no masks."""
        block = node.block(self.layout)
        return FLOAT * sum(size for name, size in self.sizes.items() if block.tunes(name))

    def scores(self, path: str) -> int:
        """File of a target's scores, for a criterion that keeps them."""
        target = self.layout.target(path)
        wide = target.kind == "attention" or target.units > EXACT
        return (DOUBLE if wide else FLOAT) * target.units + BESIDE

    def own(self, kind: str) -> int:
        """File of what a configuration has of its own in joint tuning: differences, no model."""
        if kind == "none":
            return 0
        stored = {p.weight: p.stored for target in self.layout.targets for p in target.projections}
        factors = sum(RANK * (rows + columns) for rows, columns in stored.values()) if kind == "lora" else 0
        return FLOAT * (self.vectors + factors) + BESIDE

    @cached_property
    def moments(self) -> int:
        """Moments of all inputs that the scheme's projections read, those counted once that surely are one.

        Those that know the loss are one for each module that reads, each with a metric of its outputs.
        """
        if self.metric == "plain":
            return sum(DOUBLE * width**2 for width in self._inputs().values())
        layout = self.layout.only(self.scheme.modules)
        readers = {p.path: p for target in layout.targets for p in target.projections}
        return sum(DOUBLE * ((p.in_features + p.bias) ** 2 + p.rows**2) for p in readers.values())

    def own_moments(self, node: Node, k: int, *, solving: bool = False) -> int:
        """Moments of what the last projection of the block's ``k``-th sublayer reads in the pruned block.

        ``solving`` adds the inverse that solves share.
        """
        last = self.layout.ends(node.block(self.layout))[k].last
        width = last.in_features + 1
        return DOUBLE * width * (width * (1 + solving) + last.out_features)

    def scratch(self, paths: Iterable[str]) -> int:
        """Intermediate matrices for the largest of these targets."""
        shapes = (p for path in paths for p in self.layout.target(path).projections)
        return max((SCRATCH * DOUBLE * p.in_features * max(p.in_features, p.out_features) for p in shapes), default=0)

    def _beside(self, node: Node) -> int:
        """The masks, heads' and neurons' with those of their biases, and what belongs to any file."""
        masked: dict[str, int] = {}
        for part in self._parts(node):
            for p in part.projections:
                biased = part.kind == "attention" or (part.kind == "feed_forward" and p is not part.projections[-1])
                masked |= _owned(p) if biased else {p.weight: prod(p.stored)}
        return MASK * sum(masked.values()) + BESIDE

    def _parts(self, node: Node) -> list[Target]:
        """What is cut in this node, each by itself."""
        return [part for path in node.rates for part in node.shape(self.layout.target(path)).parts(self.layout, path)]

    def _inputs(self) -> dict[tuple[str, str], int]:
        """Width of each input that is read, by a name for it."""
        layout: Layout = self.layout.only(self.scheme.modules)
        place = {path: block for block in self.layout.at("sublayer") for path in block.targets}
        widths: dict[tuple[str, str], int] = {}
        for target in layout.targets:
            block = place.get(target.path)
            for p in target.projections:
                crossing = target.kind == "attention" and p.stream != target.projections[0].stream
                name: tuple[str, str]
                if crossing:
                    name = ("the other stream", p.stream)
                elif block is not None and target.path != block.targets[-1]:
                    name = ("start", block.path)
                else:
                    name = ("own", p.path)
                widths[name] = max(widths.get(name, 0), p.in_features + p.bias)
        return widths


def levels_of(nodes: Iterable[Node]) -> dict[Level, list[Node]]:
    """Nodes by level, finest first; levels without nodes are left out."""
    nodes = list(nodes)
    by_level = {level: [node for node in nodes if node.level == level] for level in LEVELS}
    return {level: of_it for level, of_it in by_level.items() if of_it}


def _owned(p: Projection) -> dict[str, int]:
    bias = {p.bias_name: p.rows} if p.bias_name else {}
    return {p.weight: prod(p.stored), **bias}
