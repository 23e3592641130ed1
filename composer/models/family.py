"""What a model family's file must state, and how a layout is made of it.

A family is a table: for each layer its sublayers, for each sublayer its targets and where its input and
output are. Sizes come from ``config.json``; :func:`composer.models.folder.BaseModel.load` checks them against
the real modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..scheme.layout import Block, Kind, Layout, Projection, Stream, Target

if TYPE_CHECKING:
    from torch import nn

ModelConfig = dict[str, Any]
"""A parsed ``config.json``."""


@dataclass(frozen=True)
class Sublayer:
    """One attention (q, k, v and out-projection) or one feed-forward (both projections).

    ``path``, ``chain``, ``owns``, ``residual`` and ``scale`` are those of :class:`composer.scheme.layout.Block`;
    ``owns`` defaults to the chain.
    """

    path: str
    targets: tuple[Target, ...]
    chain: tuple[str, ...]
    stream: Stream
    residual: bool = False
    owns: tuple[str, ...] = ()
    scale: float = 1.0


@dataclass(frozen=True)
class Layer:
    """A Transformer layer: its sublayers in execution order; ``tap`` as in :class:`composer.scheme.layout.Block`.

    Without a tap it is a pre-norm layer: what enters it and what its sublayers give add up.
    """

    path: str
    sublayers: tuple[Sublayer, ...]
    stream: Stream
    tap: str | None = None


class Storage(Protocol):
    """How the models of a family are read from their folders and written to new ones.

    A folder holds ``config.json`` with a ``model_type``, and its weights as safetensors (``model.safetensors``, or
    shards with their index): layout, fingerprint and sizes are read from these files. Targets have the same parameter
    names in the files and in the module.
    """

    library: str
    """Name of the library whose models these are (``library_name`` of a model card)."""

    def load(self, folder: Path, config: ModelConfig, layout: Layout) -> nn.Module:
        """The model in float32. The module may differ from the family's own, as long as it computes the same:
        a projection whose path no module has, or whose module is never called, can be given one here.

        Raises:
            ModelError: what is there is no such model, or lacks the weights of a target of ``layout``.
        """
        ...

    def save(self, model: nn.Module, folder: Path, source: Path, config: ModelConfig) -> None:
        """Write a model that :meth:`load` made from ``source`` into the empty ``folder``, with all that stands beside
        its weights there (configuration, vocabulary): whoever could read ``source`` can read it."""
        ...

    def example(self, config: ModelConfig) -> str:
        """How to load ``<this folder>``, in one expression (for model cards)."""
        ...


@dataclass(frozen=True)
class Stated:
    """Keys of ``config.json`` that state sizes which shrinking changes.

    Attributes:
        neurons: of the inner width of a stack's feed-forwards.
        layers: of the number of a stack's layers, where layers can go.
        heads: of the number of query heads, where the width of a head is stated apart; None where it follows from it.
        groups: of the number of key and value heads.
        head_width: of the width of a head, which is written with the heads.
        decoder_no_deeper: a decoder with more layers than the encoder does not generate: transformers (5.23) makes the
            cache with as many layers as the encoder has.
    """

    neurons: Mapping[Stream, str]
    layers: Mapping[Stream, str]
    heads: str | None = None
    groups: str | None = None
    head_width: str | None = None
    decoder_no_deeper: bool = False


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
        storage: how folders are read and written; None is for ordinary Hugging Face folders.
        task: name of the task of its models, where that does not follow from the architecture in ``config.json``.
        stated: keys of the sizes that shrinking changes; None: a smaller model has no configuration of its own.
        followers: further projections in an attention, which lose the rows of a head with the query's.
    """

    name: str
    model_types: tuple[str, ...]
    layers: Callable[[ModelConfig], Iterator[Layer]]
    sizes: tuple[str, ...]
    shared: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    storage: Storage | None = None
    task: str | None = None
    stated: Stated | None = None
    followers: tuple[str, ...] = ()


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
                    sub.scale,
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
    owns = tuple(dict.fromkeys(name for p in target.projections for name in (p.held or (p.path,))))
    return Block("module", target.path, (target.path,), (target.path,), owns, None, False, target.projections[0].stream)


__all__ = [
    "Family",
    "Kind",
    "Layer",
    "ModelConfig",
    "Stated",
    "Storage",
    "Sublayer",
    "attention",
    "leaf",
    "linear",
    "make_layout",
]
