"""What can go from a model: the heads of each attention and the neurons of each feed-forward. Plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..models.shapes import Shapes, resized
from ..scheme.layout import Block, Layout, Projection, Stream, Target

Kind = Literal["attention", "feed_forward"]


@dataclass(frozen=True)
class Units:
    """The heads of one attention, or the neurons of one feed-forward.

    Attributes:
        kind: which of them.
        path: the target that is cut: the attention, or the first projection of the feed-forward.
        layer: path of the layer that they stand in.
        count: how many heads (whole groups where query heads share keys and values) or neurons there are.
        queries: how many query heads one unit has.
        first: the projections that make units: a unit is some rows of each, with their biases. Query, key and value;
            or gate and up, or up alone.
        last: the projection that reads units: a unit is some of its columns.
    """

    kind: Kind
    path: str
    layer: str
    count: int
    queries: int
    first: tuple[Projection, ...]
    last: Projection

    @property
    def projections(self) -> tuple[Projection, ...]:
        """All of them."""
        return (*self.first, self.last)

    @property
    def columns(self) -> int:
        """How many columns of the last projection one unit has."""
        return self.last.in_features // self.count

    def rows(self, projection: Projection) -> int:
        """How many rows of a first projection one unit has."""
        return projection.out_features // self.count

    def parameters(self, kept: int) -> int:
        """Weights and biases with so many units left."""
        rows = sum(self.rows(p) * (p.in_features + p.bias) for p in self.first)
        return kept * (rows + self.columns * self.last.out_features) + self.last.bias * self.last.out_features

    def macs(self, kept: int, lengths: Mapping[Stream, float]) -> float:
        """Multiplications for one example with so many units left.

        Those of the projections, and of an attention's scores and their sums over values.

        Args:
            lengths: stream -> tokens of an example. Cross-attention has its keys and values from the encoder's.
        """
        rows = sum(self.rows(p) * p.in_features * lengths[p.stream] for p in self.first)
        after = self.columns * self.last.out_features * lengths[self.last.stream]
        pairs = lengths[self.first[0].stream] * lengths[self.first[-1].stream]
        among = 2 * self.columns * pairs if self.kind == "attention" else 0
        return kept * (rows + after + among)


def units_of(layout: Layout) -> Iterator[Units]:
    """All attentions and feed-forwards of a layout, in execution order."""
    layers = list(layout.at("layer"))
    for block in layout.at("sublayer"):
        layer = next(
            (one.path for one in layers if one.targets[-1] in block.targets or block.targets[0] in one.targets), ""
        )
        if (found := _attention(layout, block, layer)) or (found := _feed_forward(layout, block, layer)):
            yield found


def shapes_left(left: Iterable[tuple[Units, Sequence[int]]], following: Callable[[Units], Iterable[str]]) -> Shapes:
    """The shapes of a model of whose attentions and feed-forwards some units are left.

    Args:
        left: units, and the indices of those that stay.
        following: paths of further projections of an attention that lose the same rows.
    """
    linear: dict[str, tuple[int, int]] = {}
    heads: dict[str, tuple[int, ...]] = {}
    for units, kept in left:
        if len(kept) == units.count:
            continue
        linear |= resized(Target(units.path, units.kind, units.projections, units.count), units.last, len(kept))
        if units.kind == "attention":
            heads[units.path] = tuple(kept)
            rows = units.rows(units.first[0]) * len(kept)
            linear |= dict.fromkeys(following(units), (rows, units.first[0].in_features))
    return Shapes(linear, heads)


def following(units: Units, followers: Iterable[str], there: Callable[[str], bool]) -> list[str]:
    """Paths of the further projections of an attention that are there and lose the query's rows with it.

    Args:
        followers: what the family calls them in an attention.
        there: whether a path is one of the model's.
    """
    paths = (f"{units.path}.{name}" for name in followers if units.kind == "attention")
    return [path for path in paths if there(path)]


def _attention(layout: Layout, block: Block, layer: str) -> Units | None:
    target = layout.target(block.targets[0])
    if target.kind != "attention":
        return None
    last = layout.out_projection(target.path)
    return Units("attention", target.path, layer, target.heads, target.queries, target.projections, last)


def _feed_forward(layout: Layout, block: Block, layer: str) -> Units | None:
    target = layout.feed_forward(block.targets[0])
    if target is None:
        return None
    first, last = target.projections[:-1], target.projections[-1]
    return Units("feed_forward", target.path, layer, target.heads, 1, first, last)
