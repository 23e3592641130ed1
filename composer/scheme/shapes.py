"""Shapes of what is removed (granularities): their names, where they fit, and how many weights they take.

Plain data, no torch. What removes them is :mod:`composer.tensors.ranking`.

================  =====================================================  ==========================================
name              one unit                                               a rate removes
================  =====================================================  ==========================================
``unstructured``  a weight, compared within its matrix (linear default)  ``round(rate * weights)`` of each matrix
``per-row``       a weight, compared within its output row               the same count, spread evenly over the rows
``global``        a weight, compared with those of all global targets    the same count over all of them
``N:M``           a weight, compared within M neighbours of its row      all but N of every M: the rate is 1 - N/M
``row``           an output row of a matrix                              ``round(rate * rows)``
``column``        an input column of a matrix                            ``round(rate * columns)``
``RxC``           a block of R rows and C columns                        ``round(rate * blocks)``
``head``          a head, or a whole key-value group (attention default) ``round(rate * heads)``
``stack-head``    a head, the same ones in every layer of a stack        ``round(rate * heads)``
``neuron``        an inner unit of a feed-forward                        ``round(rate * neurons)``
================  =====================================================  ==========================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError, did_you_mean
from .layout import Layout, Target

NAMES = ("unstructured", "per-row", "global", "row", "column", "head", "stack-head", "neuron")
PATTERNS = {"N:M": re.compile(r"([1-9]\d*):([1-9]\d*)"), "RxC": re.compile(r"([1-9]\d*)x([1-9]\d*)")}
KINDS = (*NAMES, *PATTERNS)
"""All kinds of shapes; a criterion names those that it makes sense with."""

SINGLE = frozenset({"unstructured", "per-row", "global", "N:M"})
"""Shapes whose units are single weights."""

ALLOWED = (
    "unstructured, per-row, global, row, column, head, stack-head, neuron, N:M (2:4 keeps 2 of 4), RxC (4x4 blocks)"
)


@dataclass(frozen=True)
class Shape:
    """A granularity; ``a`` and ``b`` are N and M of ``N:M``, or R and C of ``RxC``."""

    kind: str
    a: int = 0
    b: int = 0

    def __str__(self) -> str:
        return {"N:M": f"{self.a}:{self.b}", "RxC": f"{self.a}x{self.b}"}.get(self.kind, self.kind)

    def parts(self, layout: Layout, path: str) -> tuple[Target, ...]:
        """What of the target at ``path`` is cut by itself, seen as targets.

        Heads are cut as one; neurons with the other projections of their feed-forward
        (:meth:`~composer.scheme.layout.Layout.feed_forward`); of any other shape every projection by itself.
        """
        target = layout.target(path)
        if self.kind == "neuron":
            whole = layout.feed_forward(path)
            if whole is None:
                raise ConfigError(f"{path}: {self.problem(layout, path, 0.0)}")
            return (whole,)
        if self.by_heads or target.kind == "linear":
            return (target,)
        # Numbered: a module may hold several projections, and what is drawn by path must differ.
        paths = [p.path for p in target.projections]
        named = paths if len(set(paths)) == len(paths) else [f"{name}[{i}]" for i, name in enumerate(paths)]
        return tuple(Target(name, "linear", (p,)) for name, p in zip(named, target.projections, strict=True))

    def removed(self, part: Target, rate: float) -> int:
        """How many units of one part a rate removes."""
        if self.kind == "N:M":
            return part.units // self.b * (self.b - self.a)
        return round(rate * self.units(part))

    def units(self, part: Target) -> int:
        """How many units one part has."""
        projection = part.projections[0]
        if self.kind == "row":
            return projection.out_features
        if self.kind == "column":
            return projection.in_features
        return part.parameters // (self.a * self.b) if self.kind == "RxC" else part.units

    def removed_weights(self, layout: Layout, path: str, rate: float) -> int:
        """How many weights a rate removes at ``path`` (biases not counted); for neurons, in all projections."""
        parts = self.parts(layout, path)
        if self.kind == "global":  # one ranking over all of them
            return round(rate * sum(part.parameters for part in parts))
        return sum(self.removed(part, rate) * (part.parameters // self.units(part)) for part in parts)

    def problem(self, layout: Layout, path: str, rate: float) -> str | None:
        """Why the target at ``path`` cannot be cut in this shape; None where it can."""
        target = layout.target(path)
        if self.by_heads and target.kind != "attention":
            return f"granularity '{self}' is for attention targets; this is a linear one"
        if self.kind == "stack-head" and (problem := _not_alike(layout, path)):
            return f"granularity 'stack-head': {problem}"
        if self.kind == "neuron" and layout.feed_forward(path) is None:
            return "granularity 'neuron' is for the first projection of a feed-forward; a gate and the second follow it"
        if self.kind == "N:M":
            if rate and abs(rate - self.density_removed) > 0.005:
                return f"granularity '{self}' keeps {self.a} of {self.b}: the rate must be {self.density_removed:g}"
            return self._not_dividing(layout, path, None, self.b)
        return self._not_dividing(layout, path, self.a, self.b) if self.kind == "RxC" else None

    def whole(self, target: Target) -> bool:
        """Whether nothing of a leaf at ``target`` can be made good there, only in its sublayer's last projection."""
        return self.kind == "neuron" or target.kind == "attention"

    @property
    def by_heads(self) -> bool:
        """Whether its units are heads."""
        return self.kind in ("head", "stack-head")

    @property
    def scored(self) -> Shape:
        """The shape that a criterion scores: a stack's heads are scored layer by layer, then summed."""
        return Shape("head") if self.by_heads else self

    @property
    def single(self) -> bool:
        """Whether its units are single weights."""
        return self.kind in SINGLE

    @property
    def density_removed(self) -> float:
        """The rate of ``N:M``."""
        return 1 - self.a / self.b

    def _not_dividing(self, layout: Layout, path: str, rows: int | None, columns: int) -> str | None:
        for part in self.parts(layout, path):
            p = part.projections[0]
            if rows and p.out_features % rows:
                return (
                    f"granularity '{self}': {rows} does not divide the output dimension of {p.path}, {p.out_features}"
                )
            if p.in_features % columns:
                return (
                    f"granularity '{self}': {columns} does not divide the input dimension of {p.path}, {p.in_features}"
                )
        return None


def parse_shape(text: str, place: str = "granularity") -> Shape:
    """Read a granularity's name; ``place`` is where it stands.

    >>> parse_shape("2:4"), str(parse_shape("16x4"))
    (Shape(kind='N:M', a=2, b=4), '16x4')

    Raises:
        ConfigError: no such name, or N of ``N:M`` that keeps everything.
    """
    if text in NAMES:
        return Shape(text)
    for kind, pattern in PATTERNS.items():
        if found := pattern.fullmatch(text):
            a, b = int(found[1]), int(found[2])
            if kind == "N:M" and a >= b:
                raise ConfigError(f"{place} {text!r}: keeps {a} of {b}; allowed: N:M with N < M")
            return Shape(kind, a, b)
    raise ConfigError(f"{place}: got {text!r}; allowed: {ALLOWED}{did_you_mean(text, NAMES)}")


def default_shape(target: Target) -> Shape:
    """What a rate alone means: heads of an attention target, single weights of a linear one."""
    return Shape("head" if target.kind == "attention" else "unstructured")


def shape_of(choice: Mapping[str, str], target: Target) -> Shape:
    """The shape that a node's choice for ``target`` names, or the default."""
    return parse_shape(choice["granularity"]) if "granularity" in choice else default_shape(target)


def rate_of(removed: int, units: int) -> float:
    """The rate with as few decimals as can be that removes ``removed`` of ``units`` units.

    >>> rate_of(3, 8), rate_of(1000, 3000), rate_of(2, 2)
    (0.4, 0.3333, 1.0)
    """
    rounded = (round(removed / units, digits) for digits in range(1, 17))
    return next((rate for rate in rounded if round(rate * units) == removed), removed / units)


def _not_alike(layout: Layout, path: str) -> str | None:
    """Why heads of one index cannot go in the whole stack of an attention; None where they can."""
    stack = layout.stack(path)
    if len(counts := {layout.target(other).heads for other in stack}) > 1:
        return f"attentions of the stack have {sorted(counts)} heads, not one number"
    kept = {layout.kept_heads.get(other) for other in stack} if layout.shares_bias(path) else set()
    if len(kept) > 1:
        return "attentions of the stack share a position bias and have lost different heads; use 'head'"
    return None
