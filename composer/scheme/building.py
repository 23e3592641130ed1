"""Building the graph of configurations: hash consing (Ershov 1958; Goto 1974), O(configurations x blocks)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import SchemeError
from ..files.jsonfile import canonical, digest_of
from .configurations import Assignment, Spec
from .graph import ROOT, Node, NodeLevel, Scheme
from .layout import LEVELS, Layout, Level


def build_scheme(
    configurations: Sequence[Assignment],
    layout: Layout,
    *,
    model: str,
    fingerprint: str,
    block_levels: Iterable[Level] = ("module", "sublayer"),
) -> Scheme:
    """Build the graph of these configurations: O(configurations x blocks).

    A block without a pruned target below it is the base model's own weights and gets no node.

    Raises:
        SchemeError: levels of which the model has no block.
    """
    levels = tuple(level for level in LEVELS if level in set(block_levels))
    held = dict.fromkeys(block.level for block in layout.blocks)
    if levels and not any(level in held for level in levels):
        raise SchemeError(
            f"--block-levels: got {', '.join(levels)}; allowed for this {layout.family} model: {', '.join(held)}"
        )
    inner = tuple(level for level in LEVELS if level in levels and level != "module")
    nodes: dict[str, Node] = {}
    roots = []
    for assigned in configurations:
        top = _level_nodes(assigned, layout, inner, nodes)
        roots.append(_add(nodes, ROOT, "", assigned, [node.hash for node in top]).hash)
    return Scheme(model, fingerprint, levels, nodes, tuple(roots))


def _level_nodes(assigned: Assignment, layout: Layout, inner: Sequence[Level], nodes: dict[str, Node]) -> list[Node]:
    """Add one configuration's leaves and inner nodes; return the topmost ones, in execution order."""
    position = {path: i for i, path in enumerate(layout.paths)}
    top = [_add(nodes, "module", t, {t: assigned[t]}, []) for t in layout.paths if t in assigned]
    for level in inner:
        above: list[Node] = []
        for block in layout.at(level):
            inside = set(block.targets)
            children = [n for n in top if next(iter(n.rates)) in inside]
            if children:
                variant = {t: assigned[t] for n in children for t in n.rates}
                above.append(_add(nodes, level, block.path, variant, [n.hash for n in children]))
        covered = {t for n in above for t in n.rates}
        loose = [n for n in top if not covered & set(n.rates)]
        top = sorted(above + loose, key=lambda n: position[next(iter(n.rates))])
    return top


def _add(nodes: dict[str, Node], level: NodeLevel, path: str, assigned: Assignment, children: list[str]) -> Node:
    rates = {t: said.rate if isinstance(said, Spec) else said for t, said in assigned.items()}
    choices = {t: said.choice for t, said in assigned.items() if isinstance(said, Spec) and said.choice}
    content = [level, path, rates, children]
    name = digest_of(canonical([*content, choices] if choices else content))[:32]
    return nodes.setdefault(name, Node(name, level, path, rates, tuple(children), choices))
