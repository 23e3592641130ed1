"""What can be pruned in a model, and in which blocks it runs: plain data, no torch.

A family's adapter (``composer.models.families``) fills a :class:`Layout` from a model folder's ``config.json``
alone, so that configurations and schemes are checked without loading a model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["attention", "linear", "feed_forward"]
Level = Literal["module", "sublayer", "layer"]
Stream = Literal["encoder", "decoder"]

LEVELS: tuple[Level, ...] = ("module", "sublayer", "layer")
"""The block levels, finest first."""


@dataclass(frozen=True)
class Projection:
    """One weight matrix of a target, always seen as (out, in).

    ``stream`` names the tokens that its input rows belong to (cross-attention's keys and values read the
    encoder's). ``transposed`` marks modules that store (in, out), as GPT-2's ``Conv1D`` does. ``part`` marks
    one of several matrices that a module holds on top of each other, as GPT-2's ``c_attn`` holds q, k and v:
    (its first row, rows of the whole). :meth:`of` and :meth:`bias_of` undo both.

    ``path`` is the module that is called with the input rows. ``held`` names its weight and bias parameters where
    another module holds them, as an attention may hold the packed weights of three projections.
    """

    path: str
    out_features: int
    in_features: int
    bias: bool
    stream: Stream
    transposed: bool = False
    part: tuple[int, int] | None = None
    held: tuple[str, str] | None = None

    @property
    def weight(self) -> str:
        """Name of the weight parameter."""
        return self.held[0] if self.held else f"{self.path}.weight"

    @property
    def bias_name(self) -> str | None:
        """Name of the bias parameter; None where there is none."""
        if not self.bias:
            return None
        return self.held[1] if self.held else f"{self.path}.bias"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of its parameters: the weight's, then the bias's if there is one."""
        return (self.weight, self.bias_name) if self.bias_name else (self.weight,)

    @property
    def rows(self) -> int:
        """Rows of the module's whole weight: those of all its parts."""
        return self.part[1] if self.part else self.out_features

    @property
    def stored(self) -> tuple[int, int]:
        """Shape of the weight parameter as the module stores it."""
        return (self.in_features, self.rows) if self.transposed else (self.rows, self.in_features)

    def of(self, parameter: Tensor) -> Tensor:
        """What belongs to this projection in a tensor shaped like its weight parameter: a view, (out, in)."""
        return self.bias_of(parameter.T if self.transposed else parameter)

    def bias_of(self, parameter: Tensor) -> Tensor:
        """The same in a tensor shaped like the bias parameter: a view, (out,)."""
        start = self.part[0] if self.part else 0
        return parameter[start : start + self.out_features]


@dataclass(frozen=True)
class Target:
    """A prunable module.

    An *attention* target has the projections q, k, v (in this order) and is pruned by ``heads`` heads; a
    *linear* target has one projection and is pruned by single weights. Where ``queries`` query heads share a
    key and value head (grouped queries), the whole group is one unit, and ``heads`` counts the groups. A
    *feed_forward* is no target of a layout but what :meth:`Layout.feed_forward` makes of several: its ``heads`` are
    neurons.
    """

    path: str
    kind: Kind
    projections: tuple[Projection, ...]
    heads: int = 0
    queries: int = 1

    @property
    def units(self) -> int:
        """How many units a rate is a fraction of: heads (or neurons), or single weights."""
        return self.parameters if self.kind == "linear" else self.heads

    @property
    def parameters(self) -> int:
        """Number of weights (biases not counted)."""
        return sum(p.out_features * p.in_features for p in self.projections)

    def removed_units(self, rate: float) -> int:
        """How many units ``rate`` removes: ``round(rate * units)``."""
        return round(rate * self.units)

    def removed_weights(self, rate: float) -> int:
        """How many weights ``rate`` removes (biases not counted)."""
        return self.removed_units(rate) * (self.parameters // self.units)


@dataclass(frozen=True)
class Block:
    """A piece of the model that is tuned as one.

    Attributes:
        level: module, sublayer or layer.
        path: where it stands; unique within its level.
        targets: paths of the targets inside it, in execution order.
        chain: modules that compute it. The first is called as the model calls it; each further one gets
            the result before it. BERT's feed-forward is no single module: its chain has two.
        owns: paths of the modules whose parameters it tunes, or names of single parameters (:meth:`tunes`).
        tap: a module inside the chain whose *input* is the block's output (post-norm layers are compared
            before their LayerNorm); None takes the chain's result.
        residual: the result contains the block's input; what the block adds is result minus input.
        stream: the tokens that its output rows belong to.
        shared: name suffixes of parameters inside that other blocks read too, and that stay untouched.
        scale: what the stream gets is this times what a sublayer's last projection gives.
    """

    level: Level
    path: str
    targets: tuple[str, ...]
    chain: tuple[str, ...]
    owns: tuple[str, ...]
    tap: str | None
    residual: bool
    stream: Stream
    shared: tuple[str, ...] = ()
    scale: float = 1.0

    def tunes(self, name: str) -> bool:
        """Whether the parameter called ``name`` is one that the block tunes."""
        inside = any(name == path or name.startswith(f"{path}.") for path in self.owns)
        return inside and not (self.shared and name.endswith(self.shared))


@dataclass(frozen=True)
class End:
    """Where a sublayer ends: its last projection, and the module whose output (or input) is the stream after it.

    There one more of the projection's output is ``scale`` more.
    """

    last: Projection
    path: str
    is_input: bool
    scale: float = 1.0


@dataclass(frozen=True)
class Layout:
    """All targets and blocks of one model, in execution order.

    ``listed`` is False for a model of no known family: every ``nn.Linear`` is a target then, and the user
    says which of them are meant. ``kept_heads`` has, of attentions that lost heads when the model was shrunk, which of
    all that they had are left; ``before`` is the layout before it was, by its configuration's sizes alone.
    """

    family: str
    targets: tuple[Target, ...]
    blocks: tuple[Block, ...]
    listed: bool = True
    kept_heads: Mapping[str, tuple[int, ...]] = field(default_factory=dict, compare=False)
    before: Layout | None = field(default=None, compare=False, repr=False)
    _by_path: dict[str, Target] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_path.update((target.path, target) for target in self.targets)

    def __contains__(self, path: object) -> bool:
        return path in self._by_path

    def target(self, path: str) -> Target:
        """The target at ``path``; ``KeyError`` when there is none."""
        return self._by_path[path]

    @property
    def whole(self) -> Layout:
        """Of a shrunk model the layout before, which has also the layers that have lost a sublayer; else this one."""
        return self.before or self

    @cached_property
    def _blocks(self) -> dict[tuple[Level, str], Block]:
        return {(block.level, block.path): block for block in self.blocks}

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Paths of all targets, in execution order."""
        return tuple(target.path for target in self.targets)

    def at(self, level: Level) -> Iterator[Block]:
        """Blocks of one level, in execution order."""
        return (block for block in self.blocks if block.level == level)

    def block(self, level: Level, path: str) -> Block:
        """The block at ``path`` of ``level``; ``KeyError`` when there is none."""
        return self._blocks[level, path]

    @cached_property
    def pre_norm(self) -> dict[str, str]:
        """Sublayers that are called with a normed copy of the stream, each with the layer whose input the stream is.

        A layer without a tap normalises before its sublayers; one that contains its residual (T5) also holds its norm.
        """
        layers = {path: layer.path for layer in self.at("layer") if not layer.tap for path in layer.targets}
        inside = (b for b in self.at("sublayer") if not b.residual and b.targets[-1] in layers)
        return {b.path: layers[b.targets[-1]] for b in inside}

    def ends(self, block: Block) -> tuple[End, ...]:
        """Ends of the sublayers inside ``block``, in execution order; a module or sublayer has one: its own."""
        inside = [b for b in self.at("sublayer") if b.targets[-1] in block.targets] if block.level == "layer" else []
        places = [*inside[:-1], block]
        return tuple(
            End(
                self.target(sub.targets[-1]).projections[-1],
                place.tap or place.chain[-1],
                bool(place.tap),
                sub.scale if place.residual else 1.0,
            )
            for sub, place in zip(inside or [block], places, strict=True)
        )

    def stack(self, path: str) -> tuple[str, ...]:
        """Targets at the same place of every layer as the one at ``path``, in execution order, itself among them."""
        here = unnumbered(path)
        return tuple(other for other in self.paths if unnumbered(other) == here)

    def shares_bias(self, path: str) -> bool:
        """Whether the attention at ``path`` reads a position bias, by heads, that its whole stack shares (T5)."""
        streams = {p.stream for p in self.target(path).projections}
        return len(streams) == 1 and any(block.shared for block in self.blocks if path in block.targets)

    def out_projection(self, path: str) -> Projection:
        """The projection that reads the heads of the attention target at ``path``."""
        for block in self.at("sublayer"):
            if path in block.targets:
                return self.target(block.targets[block.targets.index(path) + 1]).projections[0]
        raise KeyError(path)

    def in_feed_forwards(self, paths: Iterable[str]) -> frozenset[str]:
        """All projections of the feed-forwards that begin at one of these: what goes where neurons go there."""
        wholes = [whole for path in paths if (whole := self.feed_forward(path))]
        return frozenset(p.path for whole in wholes for p in whole.projections)

    def feed_forward(self, path: str) -> Target | None:
        """The feed-forward whose first target is at ``path``: its projections up, gates among them, then down.

        A neuron is a row of each of the first ones with its biases, and a column of the last. None where no
        feed-forward begins at ``path``.
        """
        for block in self.at("sublayer"):
            targets = [self.target(t) for t in block.targets if t in self]
            if (
                len(targets) == len(block.targets)
                and block.targets[0] == path
                and len(targets) > 1
                and all(t.kind == "linear" for t in targets)
            ):
                projections = tuple(t.projections[0] for t in targets)
                neurons = projections[-1].in_features
                if all(p.out_features == neurons for p in projections[:-1]):
                    return Target(path, "feed_forward", projections, neurons)
        return None

    def only(self, paths: Collection[str]) -> Layout:
        """The targets at ``paths``, with the projections that read the heads of those that are attentions."""
        attentions = (path for path in paths if self.target(path).kind == "attention")
        wanted = {*paths, *(self.out_projection(path).path for path in attentions)}
        return replace(self, targets=tuple(target for target in self.targets if target.path in wanted))

    def parameters(self, targets: Iterable[str]) -> int:
        """Number of weights in these targets."""
        return sum(self.target(path).parameters for path in targets)


def unnumbered(path: str) -> str:
    """A path as a glob, with stars in the place of numbers of layers."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", path)
