"""What a model family's file must state, and how a layout is made of it.

A family is a table: for each layer its sublayers, for each sublayer its targets and where its input and
output are. Sizes come from ``config.json``; :func:`composer.models.base.BaseModel.load` checks them against
the real modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..layout import Block, Kind, Layout, Projection, Stream, Target

ModelConfig = dict[str, Any]
"""A parsed ``config.json``."""


@dataclass(frozen=True)
class Sublayer:
    """One attention (q, k, v and out-projection) or one feed-forward (both projections).

    ``path``, ``chain``, ``owns``, ``tap`` and ``residual`` are those of :class:`composer.layout.Block`;
    ``owns`` defaults to the chain.
    """

    path: str
    targets: tuple[Target, ...]
    chain: tuple[str, ...]
    stream: Stream
    residual: bool = False
    owns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """A Transformer layer: its sublayers in execution order; ``tap`` as in :class:`composer.layout.Block`."""

    path: str
    sublayers: tuple[Sublayer, ...]
    stream: Stream
    tap: str | None = None


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: as shown to users.
        model_types: the values of ``model_type`` in ``config.json`` that it serves.
        layers: yields the layers of a model with this configuration, in execution order.
        sizes: configuration keys that ``layers`` reads; a missing one is reported before it is called.
        optional: further sizes, which may be missing or null.
        shared: suffixes of parameters that stand inside one block and are read by others.
    """

    name: str
    model_types: tuple[str, ...]
    layers: Callable[[ModelConfig], Iterator[Layer]]
    sizes: tuple[str, ...]
    shared: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def attention(
    path: str,
    names: tuple[str, str, str],
    *,
    width: int,
    inner: int,
    heads: int,
    bias: bool,
    stream: Stream,
    memory: tuple[int, Stream] | None = None,
    groups: int | None = None,
) -> Target:
    """An attention target: projections ``path.names`` of shape (inner, width), pruned by ``heads`` heads.

    Args:
        memory: width and stream of what keys and values read, when that is not the query's input.
        groups: how many key and value heads there are, when several query heads share one; a group is a unit.
    """
    kv_width, kv_stream = memory or (width, stream)
    groups = groups or heads
    kv_inner = inner // heads * groups
    q, k, v = names
    return Target(
        path,
        "attention",
        (
            Projection(f"{path}.{q}", inner, width, bias, stream),
            Projection(f"{path}.{k}", kv_inner, kv_width, bias, kv_stream),
            Projection(f"{path}.{v}", kv_inner, kv_width, bias, kv_stream),
        ),
        groups,
        heads // groups,
    )


def linear(
    path: str, out_features: int, in_features: int, *, bias: bool, stream: Stream, transposed: bool = False
) -> Target:
    """A linear target of shape (out_features, in_features), pruned by single weights."""
    return Target(path, "linear", (Projection(path, out_features, in_features, bias, stream, transposed),))


def make_layout(family: Family, config: ModelConfig) -> Layout:
    """Expand a family's table for one configuration."""
    targets: list[Target] = []
    blocks: list[Block] = []
    for layer in family.layers(config):
        for sub in layer.sublayers:
            targets += sub.targets
            blocks += (leaf(target) for target in sub.targets)
            paths = tuple(t.path for t in sub.targets)
            owns = sub.owns or sub.chain
            blocks.append(
                Block(
                    "sublayer",
                    sub.path,
                    paths,
                    sub.chain,
                    owns,
                    None,
                    sub.residual,
                    sub.stream,
                    family.shared,
                )
            )
        paths = tuple(t.path for sub in layer.sublayers for t in sub.targets)
        blocks.append(
            Block(
                "layer",
                layer.path,
                paths,
                (layer.path,),
                (layer.path,),
                layer.tap,
                True,
                layer.stream,
                family.shared,
            )
        )
    return Layout(family.name, tuple(targets), tuple(blocks))


def leaf(target: Target) -> Block:
    """The block of one target by itself."""
    owns = tuple(dict.fromkeys(p.path for p in target.projections))
    return Block("module", target.path, (target.path,), (target.path,), owns, None, False, target.projections[0].stream)


__all__ = ["Family", "Kind", "Layer", "ModelConfig", "Sublayer", "attention", "leaf", "linear", "make_layout"]
