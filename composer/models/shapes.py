"""Shapes of their own: what ``config.json`` says of layers that are smaller than its sizes, and a layout with them.

Plain data, no torch. ``config.json`` has the key ``shrunk``, or ``simplified`` where norms are none any more;
:mod:`composer.models.modeling_shrunk` says what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ModelError
from ..scheme.layout import Block, Layout, Projection, Target

KEY = "shrunk"
"""Key of ``config.json``."""
SIMPLE = "simplified"
"""Key of ``config.json`` that says which norms are a scale and a shift alone."""


def needs_code(config: Mapping[str, Any]) -> bool:
    """Whether plain transformers cannot build a model with this ``config.json``, and our code beside it has to."""
    return bool(config.get(KEY) or config.get(SIMPLE))


def simple_norms(config: Mapping[str, Any], where: str = "config.json") -> Mapping[str, int]:
    """Path of each norm that is none any more -> how many vectors it has (:mod:`composer.models.modeling_shrunk`).

    Raises:
        ModelError: something else stands under the key.
    """
    said = config.get(SIMPLE)
    if said is None:
        return {}
    norms = said.get("norms") if isinstance(said, dict) else None
    if not isinstance(norms, dict) or any(count not in (0, 1, 2) for count in norms.values()):
        raise ModelError(f"{where}: {SIMPLE}: allowed: an object with 'norms', for each path 0, 1 or 2")
    return norms


@dataclass(frozen=True)
class Shapes:
    """What is smaller than the configuration's sizes.

    Attributes:
        linear: path of a projection -> (out, in) features.
        heads: path of an attention -> indices of the heads, or groups, that are left of those that it once had.
    """

    linear: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, ...]]

    def __bool__(self) -> bool:
        return bool(self.linear or self.heads)

    def as_json(self) -> dict[str, Any]:
        """What stands in ``config.json``."""
        return {
            "linear": {path: list(sizes) for path, sizes in self.linear.items()},
            "heads": {path: list(kept) for path, kept in self.heads.items()},
        }


NONE = Shapes({}, {})


def shapes_of(config: Mapping[str, Any], where: str = "config.json") -> Shapes:
    """The shapes that a ``config.json`` states.

    Raises:
        ModelError: something else stands under the key.
    """
    said = config.get(KEY)
    if said is None:
        return NONE
    if not isinstance(said, dict) or set(said) - {"linear", "heads"}:
        raise ModelError(f"{where}: {KEY}: allowed: an object with 'linear' and 'heads'")
    linear, heads = said.get("linear", {}), said.get("heads", {})
    problems = [f"linear: {p!r}: allowed: two numbers" for p, sizes in linear.items() if not _are_sizes(sizes, 2)]
    problems += [f"heads: {p!r}: allowed: indices of heads" for p, kept in heads.items() if not _are_sizes(kept)]
    if problems:
        raise ModelError([f"{where}: {KEY}: {problem}" for problem in problems[:5]])
    return Shapes(
        {path: (sizes[0], sizes[1]) for path, sizes in linear.items()}, {p: tuple(k) for p, k in heads.items()}
    )


def _are_sizes(value: Any, count: int | None = None) -> bool:
    plain = isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)
    return plain and (count is None or len(value) == count) and (count is not None or value == sorted(set(value)))


def shaped_layout(layout: Layout, shapes: Shapes, where: str = "config.json") -> Layout:
    """``layout`` with these shapes; what has nothing left is not in it.

    Raises:
        ModelError: shapes of modules that the layout does not have, or larger ones than it has.
    """
    if not shapes:
        return layout
    unknown = [path for path in shapes.heads if path not in layout]
    known = {p.path for t in layout.targets for p in t.projections}
    # An attention may have projections of positions that are no targets.
    unknown += [path for path in shapes.linear if path not in known and path.rpartition(".")[0] not in shapes.heads]
    if unknown:
        raise ModelError([f"{where}: {KEY}: the model has no {path!r}" for path in unknown[:5]])
    targets = [_shaped(target, shapes, where) for target in layout.targets]
    left = {target.path: target for target in targets if target}
    found = (_without(block, left, layout) for block in layout.blocks)
    blocks = tuple(block for block in found if block)
    return replace(layout, targets=tuple(left.values()), blocks=blocks, kept_heads=shapes.heads, before=layout)


def _shaped(target: Target, shapes: Shapes, where: str) -> Target | None:
    """The target with its shapes; None where nothing of it is left."""
    if target.kind == "attention":
        kept = shapes.heads.get(target.path)
        if kept is None:
            return target
        if kept and kept[-1] >= target.heads:
            raise ModelError(f"{where}: {KEY}: heads: {target.path!r} has {target.heads} heads, no head {kept[-1]}")
        parts = tuple(_with_heads(p, target.heads, len(kept)) for p in target.projections)
        return replace(target, projections=parts, heads=len(kept)) if kept else None
    projection = target.projections[0]
    rows, columns = shapes.linear.get(projection.path, (projection.out_features, projection.in_features))
    if rows > projection.out_features or columns > projection.in_features:
        raise ModelError(f"{where}: {KEY}: linear: {target.path!r} is ({rows}, {columns}), larger than without it")
    return (
        replace(target, projections=(replace(projection, out_features=rows, in_features=columns),))
        if rows and columns
        else None
    )


def _with_heads(projection: Projection, heads: int, kept: int) -> Projection:
    def left(rows: int) -> int:
        return rows // heads * kept

    part = projection.part and (left(projection.part[0]), left(projection.part[1]))
    return replace(projection, out_features=left(projection.out_features), part=part)


def _without(block: Block, left: Mapping[str, Target], layout: Layout) -> Block | None:
    """The block with the targets that are left; None where it has none, or where it would end elsewhere."""
    targets = tuple(path for path in block.targets if path in left)
    if not targets or (block.level == "layer" and _lost_sublayer(block, left, layout)):
        return None
    return replace(block, targets=targets)


def _lost_sublayer(layer: Block, left: Mapping[str, Target], layout: Layout) -> bool:
    inside = (sub for sub in layout.at("sublayer") if sub.targets[-1] in layer.targets)
    return any(not set(sub.targets) & set(left) for sub in inside)


def without_heads(layout: Layout, gone: Mapping[int, Sequence[int]], where: str) -> Shapes:
    """Shapes of a checkpoint of transformers 4, which names the removed heads of each layer (``pruned_heads``).

    Raises:
        ModelError: a layer or a head that the model does not have.
    """
    attentions = [target for target in layout.targets if target.kind == "attention"]
    linear: dict[str, tuple[int, int]] = {}
    heads: dict[str, tuple[int, ...]] = {}
    for layer, lost in gone.items():
        if not 0 <= layer < len(attentions) or not set(lost) <= set(range(attentions[layer].heads)):
            raise ModelError(f"{where}: pruned_heads: {layer}: {list(lost)}: the model has no such layer or heads")
        target = attentions[layer]
        heads[target.path] = kept = tuple(h for h in range(target.heads) if h not in lost)
        linear |= resized(target, layout.out_projection(target.path), len(kept))
    return Shapes(linear, heads)


def resized(target: Target, out: Projection, kept: int) -> dict[str, tuple[int, int]]:
    """Sizes of what gives and reads the units of a target (heads or neurons), with ``kept`` of them left."""
    first = [p for p in target.projections if p.path != out.path]
    sizes = {p.path: (p.rows // target.heads * kept, p.in_features) for p in first}
    return sizes | {out.path: (out.out_features, out.in_features // target.heads * kept)}
