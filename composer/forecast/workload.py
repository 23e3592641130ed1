"""How much work a scheme is, in pieces of equal size: counts, from the scheme and the recipe alone.

What a piece costs is measured in :mod:`.timing`, under the same names of units. Block trainers' work is in
:mod:`.blockwork`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from ..pruning.criteria import CRITERIA
from ..pruning.criteria.choice import criterion_of, looks_at_data
from ..pruning.criteria.criterion import moves_weights
from ..recipe import Recipe
from ..scheme.graph import Node, Scheme
from ..scheme.layout import Layout
from .footprint import Footprint

Key = tuple[str, tuple[str | int, ...]]
"""Unit and kind of a piece of work."""


@dataclass(frozen=True)
class Work:
    """So many equal pieces of work.

    Attributes:
        unit: what a piece is: ``gather`` and ``show`` (a pass of the base model over the calibration sample, with
            and without its moments), ``teach`` (over one batch of blocks), ``select``, ``solve``, ``prepare`` (what
            solves for the same inputs share), ``probe`` (one variant's moments of its own inputs over the sample),
            ``learn`` and ``look`` (a block's step and validation on a batch), ``joint`` (a step of all configurations
            together), ``step`` (of a whole model), ``file``, ``byte``, ``compose``, ``sweep`` (of a composed model).
        of: what stands for all of its kind: a target's path, a node's hash and the number of a sublayer in it, the
            examples of a step.
        operations: what pieces of one unit cost in proportion, where they differ.
        least: the count if what may end early does.
    """

    unit: str
    count: float
    of: tuple[str | int, ...] = ()
    operations: float = 1.0
    least: float | None = None

    def times(self, factor: float) -> Work:
        """So many times as much."""
        return replace(self, count=self.count * factor, least=None if self.least is None else self.least * factor)


@dataclass(frozen=True)
class Setting:
    """What the counts depend on."""

    scheme: Scheme
    layout: Layout
    recipe: Recipe
    sizes: Footprint
    selects: bool
    """Whether a criterion looks at data."""
    valid: int
    """Validation examples that blocks are measured on."""

    @cached_property
    def keeping(self) -> frozenset[str]:
        """Targets whose scores are stored: their criterion looks at data, and has scores as it moves no weights."""
        default = CRITERIA.get(self.recipe.criterion)()
        criteria = ((node.path, criterion_of(node, node.path, default)) for node in self.scheme.at("module"))
        return frozenset(path for path, one in criteria if looks_at_data(one) and not moves_weights(one))

    @property
    def passes(self) -> int:
        """Passes that gather the base model's moments once."""
        return parts([self.sizes.moments], self.recipe.memory)

    def pruned_nodes(self) -> list[Node]:
        """What is stored when variants are pruned."""
        return self.scheme.pruned_nodes(self.layout, dead_columns=self.recipe.dead_columns)

    def tuned_nodes(self) -> list[Node]:
        """The blocks, less those that joint tuning leaves as they are pruned."""
        if self.recipe.trainer == "joint" and self.recipe.block.start == "pruned":
            return []
        return [node for wave in self.scheme.waves() for node in wave]

    def kinds(self, paths: Iterable[str]) -> list[str]:
        """What kind of target each of these is."""
        return [self.layout.target(path).kind for path in paths]

    def targets_of(self, node: Node) -> tuple[str, ...]:
        """All targets of the node's block, pruned or not."""
        return node.block(self.layout).targets

    def like(self, node: Node) -> str:
        """The node that stands for all of the same level and sizes: one of middling rates."""
        kin = self._kin[self._size(node)]
        return kin[len(kin) // 2]

    def target_like(self, path: str) -> str:
        """The target that stands for all of the same sizes."""
        return self._target_kin[self._target_size(path)]

    @cached_property
    def _kin(self) -> dict[tuple[object, ...], list[str]]:
        found: dict[tuple[object, ...], list[str]] = {}
        inner = [node for node in self.scheme.nodes.values() if node.path]
        for node in sorted(inner, key=lambda n: sum(n.rates.values()) / len(n.rates)):
            found.setdefault(self._size(node), []).append(node.hash)
        return found

    @cached_property
    def _target_kin(self) -> dict[tuple[object, ...], str]:
        return {self._target_size(path): path for path in self.scheme.modules}

    def _size(self, node: Node) -> tuple[object, ...]:
        return node.level, *map(self._target_size, self.targets_of(node))

    def _target_size(self, path: str) -> tuple[object, ...]:
        target = self.layout.target(path)
        sizes = ((p.out_features, p.in_features, p.bias, p.stream) for p in target.projections)
        return target.kind, target.heads, *sizes


@dataclass(frozen=True)
class Blocks:
    """The blocks to tune for so many configurations.

    ``gathered``: the moments are there from pruning; ``joint``: names of what joint tuning has stored already.
    """

    nodes: Sequence[Node]
    configurations: int
    gathered: bool
    joint: frozenset[str] = frozenset()


def pruning(nodes: Sequence[Node], setting: Setting, scored: Collection[str] = ()) -> Iterator[Work]:
    """Prune these variants; targets in ``scored`` have stored scores."""
    paths = dict.fromkeys(list(node.rates)[-1] for node in nodes)
    new = [path for path in paths if path not in scored]
    if setting.selects and new:
        yield Work("gather", setting.passes)
    for path in new:
        target = setting.layout.target(path)
        read = setting.layout.out_projection(path) if target.kind == "attention" else target.projections[0]
        effort = read.in_features**2 * (read.in_features + 70 * read.out_features * (target.kind == "linear"))
        yield Work("select", 1, (setting.target_like(path),), effort)
    files = [setting.sizes.pruned(node) for node in nodes]
    yield from stored(files + [setting.sizes.scores(path) for path in new if path in setting.keeping])


def stored(files: Sequence[int]) -> Iterator[Work]:
    """Write files of these sizes and read them again."""
    if files:
        yield Work("file", len(files))
        yield Work("byte", sum(files))


def parts(sizes: Sequence[int], memory: int | None) -> int:
    """Into how many parts moments of these sizes are split, to stay within ``memory``."""
    return max(1, -(-sum(sizes) // memory)) if memory else 1


def summed(works: Iterable[Work]) -> list[Work]:
    """Pieces of the same kind taken together."""
    order = sorted(works, key=lambda work: (work.unit, work.operations, str(work.of)))
    return [_sum(list(some)) for _, some in groupby(order, lambda work: (work.unit, work.operations, work.of))]


def _sum(works: Sequence[Work]) -> Work:
    counts = sum(work.count for work in works)
    return replace(works[0], count=counts, least=sum(w.count if w.least is None else w.least for w in works))
