"""The scheme: the hash-consed graph of everything that N configurations need.

Every subtree of a configured model gets the hash of its level, its path, the rates in it (with granularity and
criterion, where a target has others than the defaults) and its children's hashes. Equal hashes in different
configurations are one node, so the union of all configurations is a directed acyclic graph: leaves are (target,
rate) *variants*, inner nodes sublayers and layers, roots whole configurations. This is hash consing (Ershov 1958;
Goto 1974).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..errors import SchemeError
from ..files.jsonfile import digest_of, write_json
from .configurations import Rates
from .layout import LEVELS, Block, Layout, Level, Target
from .shapes import Shape, shape_of

if TYPE_CHECKING:
    import networkx as nx

FORMAT = 1
NodeLevel = Literal["module", "sublayer", "layer", "model"]
"""A block level, or that of roots."""
ROOT: Final = "model"
SHARED = "shared"
"""Name under which a jointly tuned library serves what all its configurations share: the whole model's weights."""


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    ``rates`` is the full variant: rate of every pruned target below. ``children`` are hashes, in
    execution order. ``choices`` says of targets that are not pruned by default how they are: ``granularity``,
    ``criterion``, or both.
    """

    hash: str
    level: NodeLevel
    path: str
    rates: Rates
    children: tuple[str, ...]
    choices: Mapping[str, dict[str, str]] = field(default_factory=dict)

    def block(self, layout: Layout) -> Block:
        """The block of the model that the node is a version of; ``KeyError`` for a root, which is no block."""
        if self.level == ROOT:
            raise KeyError(self.label)
        return layout.block(self.level, self.path)

    def shape(self, target: Target) -> Shape:
        """In which shape ``target`` is pruned in this node."""
        return shape_of(self.choices.get(target.path, {}), target)

    def is_whole_leaf(self, layout: Layout) -> bool:
        """Whether it is a variant that loses heads or neurons: on the base model's inputs what it keeps is exact."""
        return self.level == "module" and self.shape(target := layout.target(self.path)).whole(target)

    def heads_before(self, layout: Layout) -> Target | None:
        """The target pruned by heads before the pruned out-projection of a sublayer; None where there is none."""
        targets = [layout.target(path) for path in self.rates]
        fits = [target.kind for target in targets] == ["attention", "linear"] and self.shape(targets[0]).by_heads
        return targets[0] if fits else None

    def units_before(self, layout: Layout) -> tuple[Target, ...] | None:
        """What loses heads or neurons before the last projection of a block; None where other weights go there.

        What is kept of heads and neurons reads and gives what it does in the base model, so on the base model's inputs
        the last projection reads the base model's own, without the columns of those that are gone.
        """
        *before, last = self.block(layout).targets
        if self.level == "layer":
            return None
        found: list[Target] = []
        for target in (layout.target(path) for path in before if path in self.rates):
            shape = self.shape(target)
            whole = target if shape.by_heads else layout.feed_forward(target.path) if shape.kind == "neuron" else None
            if whole is None or (whole is not target and whole.projections[-1].path != last):
                return None
            found.append(whole)
        return tuple(found)

    def removed_weights(self, layout: Layout) -> dict[str, int]:
        """How many weights go, by the target that asks for it (a neuron's in all projections)."""
        return {
            path: self.shape(layout.target(path)).removed_weights(layout, path, rate)
            for path, rate in self.rates.items()
        }

    @property
    def label(self) -> str:
        """A short name for messages: level, path and rates."""
        rates = "/".join(f"{rate:g}" for rate in dict.fromkeys(self.rates.values()))
        how = "".join(
            f" ({' '.join(words)})" for words in dict.fromkeys(tuple(c.values()) for c in self.choices.values())
        )
        return f"{self.level} {self.path or '(whole model)'} at {rates or 0}{how}"


@dataclass(frozen=True)
class Sharing:
    """What sharing brings at one level: ``work`` counts weights of target modules that are tuned."""

    level: NodeLevel
    blocks: int
    uses: int
    work: int
    work_unshared: int

    @property
    def saved(self) -> float:
        """Share of the unshared work that need not be done."""
        return 1 - self.work / self.work_unshared if self.work_unshared else 0.0


@dataclass(frozen=True)
class Scheme:
    """The plan made from the configurations (``conf_prune.json``).

    Attributes:
        model: the base model's folder, as it was given.
        fingerprint: of the base model's weights.
        block_levels: which levels are tuned, finest first. Variants (leaves) always exist.
        nodes: hash -> node; children come before parents.
        roots: hash of each configuration's root, in order (equal configurations share one).
    """

    model: str
    fingerprint: str
    block_levels: tuple[Level, ...]
    nodes: dict[str, Node]
    roots: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """sha256 over everything above."""
        return digest_of(self._content())

    @cached_property
    def modules(self) -> dict[str, list[float]]:
        """Target -> sorted distinct rates > 0 that are asked of it."""
        rates: dict[str, set[float]] = defaultdict(set)
        for node in self.at("module"):
            rates[node.path].add(node.rates[node.path])
        return {path: sorted(values) for path, values in rates.items()}

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Nodes by hash, an edge from each child to each of its parents."""
        import networkx as nx

        graph: nx.DiGraph = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from((child, node.hash) for node in self.nodes.values() for child in node.children)
        return graph

    def at(self, level: NodeLevel) -> list[Node]:
        """All nodes of a level, in execution order of their first use."""
        return [node for node in self.nodes.values() if node.level == level]

    def touched(self, layout: Layout) -> frozenset[str]:
        """Targets that lose weights or are ranked with one that does: a neuron's feed-forward, a head's stack."""
        shapes = {(n.path, n.shape(layout.target(n.path)).kind) for n in self.at("module")}
        neurons = [path for path, kind in shapes if kind == "neuron"]
        stacks = [other for path, kind in shapes if kind == "stack-head" for other in layout.stack(path)]
        return frozenset((*self.modules, *stacks)) | layout.in_feed_forwards(neurons)

    def pruned_nodes(self, layout: Layout, *, dead_columns: bool) -> list[Node]:
        """What pruning stores: variants; with ``dead_columns`` also sublayers whose masks follow from their heads."""
        sublayers = self.at("sublayer") if dead_columns else []
        return self.at("module") + [node for node in sublayers if node.heads_before(layout)]

    def root(self, i: int) -> Node:
        """Configuration ``i``, counted from 0."""
        if not 0 <= i < len(self.roots):
            raise SchemeError(f"-n/--configuration: got {i}; allowed: 0 to {len(self.roots) - 1}")
        return self.nodes[self.roots[i]]

    def below(self, root: Node) -> Iterator[Node]:
        """``root`` and every node below it, parents first, each once."""
        seen: set[str] = set()
        stack = [root.hash]
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                yield self.nodes[name]
                stack.extend(reversed(self.nodes[name].children))

    def waves(self) -> list[list[Node]]:
        """Blocks to tune, in waves: a wave's nodes depend only on earlier waves, never on each other."""
        import networkx as nx

        generations = nx.topological_generations(self.graph)
        waves = [[self.nodes[name] for name in generation] for generation in generations]
        order = {name: i for i, name in enumerate(self.nodes)}
        tuned = [
            sorted((n for n in wave if n.level in self.block_levels), key=lambda n: order[n.hash]) for wave in waves
        ]
        return [wave for wave in tuned if wave]

    def sharing(self, layout: Layout) -> list[Sharing]:
        """Per level, finest first: distinct blocks, their uses over all configurations, units of work."""
        uses: dict[str, int] = defaultdict(int)
        for root in self.roots:
            for node in self.below(self.nodes[root]):
                uses[node.hash] += 1
        result = []
        levels: tuple[NodeLevel, ...] = (*LEVELS, ROOT)
        for level in levels:
            nodes = self.at(level)
            sizes = {n.hash: self._work(n, layout) for n in nodes}
            result.append(
                Sharing(
                    level,
                    len(nodes),
                    sum(uses[n.hash] for n in nodes),
                    sum(sizes.values()),
                    sum(sizes[n.hash] * uses[n.hash] for n in nodes),
                )
            )
        return [row for row in result if row.blocks]

    def sparsity(self, i: int, layout: Layout) -> float:
        """Share of all target weights that configuration ``i`` removes."""
        removed = sum(self.root(i).removed_weights(layout).values())
        return removed / layout.parameters(layout.paths)

    def save(self, path: Path) -> None:
        """Write ``conf_prune.json``, whole or not at all."""
        write_json(path, {**self._content(), "digest": self.digest})

    def _work(self, node: Node, layout: Layout) -> int:
        if node.level == ROOT:
            return layout.parameters(layout.paths)
        return layout.parameters(node.block(layout).targets)

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "block_levels": list(self.block_levels),
            "modules": self.modules,
            "configurations": list(self.roots),
            "nodes": [
                {
                    "hash": n.hash,
                    "level": n.level,
                    "path": n.path,
                    "rates": n.rates,
                    "children": list(n.children),
                    **({"choices": dict(n.choices)} if n.choices else {}),
                }
                for n in self.nodes.values()
            ],
        }
