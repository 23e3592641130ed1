"""The words in which work is told beforehand: so many pieces of equal size, each named by what a piece is.

A block trainer says its work and its memory in them (:class:`.blocks.trainer.BlockTrainer`); `compose plan` adds the
work of all other steps, and tries a piece of each kind to turn counts into seconds. No model is needed to count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

from ..scheme.graph import Node, Scheme
from ..scheme.layout import Layout

LEARNING = 4
"""A parameter that learns: itself, its gradient and AdamW's two averages."""

Unit = Literal[
    "gather",
    "show",
    "teach",
    "select",
    "solve",
    "prepare",
    "probe",
    "learn",
    "look",
    "block",
    "joint",
    "step",
    "answer",
    "file",
    "byte",
    "compose",
    "sweep",
]
"""What a piece of work is.

===========  ======================================================================================================
of a pass    of the base model: ``gather`` and ``show`` (over the calibration sample, with and without its moments),
             ``teach`` (over one batch of blocks)
closed forms ``select`` (the scores of a target), ``solve``, ``prepare`` (what solves for the same inputs share),
             ``probe`` (one variant's moments of its own inputs over the sample)
of a block   ``learn`` and ``look`` (a step and a validation on one batch), ``block`` (all that its trainer does to it)
of a model   ``step``, ``joint`` (a step of all configurations together), ``answer`` (a teacher's pass over the batch
             of one), ``compose``, ``sweep`` (of a composed model)
of files     ``file``, ``byte``
===========  ======================================================================================================
"""
UNITS: tuple[str, ...] = get_args(Unit)


@dataclass(frozen=True)
class Work:
    """So many equal pieces of work.

    Attributes:
        unit: what a piece is.
        count: how many there are.
        of: what stands for all of its kind: a target's path; a node's hash, and the number of a sublayer in it for
            closed forms; the examples of a step.
        operations: what pieces of one unit cost in proportion, where they differ.
        least: the count if what may end early does; None where nothing may.
    """

    unit: Unit
    count: float
    of: tuple[str | int, ...] = ()
    operations: float = 1.0
    least: float | None = None

    def times(self, factor: float) -> Work:
        """So many times as much."""
        return replace(self, count=self.count * factor, least=None if self.least is None else self.least * factor)


class Sizes(Protocol):
    """Bytes of what a trainer holds in memory."""

    @property
    def moments(self) -> int:
        """Second moments of all inputs that the scheme's projections read in the base model."""
        ...

    def weights(self, node: Node) -> int:
        """All parameters of the node's block."""
        ...

    def own_moments(self, node: Node, k: int, *, solving: bool = False) -> int:
        """Moments of what the last projection of the block's ``k``-th sublayer reads in the pruned block.

        ``solving`` adds the inverse that solves share.
        """
        ...

    def scratch(self, paths: Iterable[str]) -> int:
        """Intermediate matrices of a solve for the largest of these targets."""
        ...


@dataclass(frozen=True)
class BlockWaves:
    """Blocks that are to be tuned, and what the work on them depends on.

    Attributes:
        waves: the blocks; those of one wave depend on earlier waves only. None is empty.
        like: the hash of the block that stands for all of the same level and sizes, to say what a piece is ``of``.
        valid: validation examples that blocks are measured on.
        memory: most bytes for moments of the calibration sample; None is no bound.
        gathered: whether the base model's moments have been gathered already, as for the criterion.
    """

    waves: Sequence[Sequence[Node]]
    scheme: Scheme
    layout: Layout
    sizes: Sizes
    like: Callable[[Node], str]
    valid: int
    memory: int | None = None
    gathered: bool = False

    @property
    def nodes(self) -> list[Node]:
        """All blocks."""
        return [node for wave in self.waves for node in wave]

    @property
    def passes(self) -> int:
        """Passes over the calibration sample that gather the base model's moments once."""
        return parts([self.sizes.moments], self.memory)


def parts(sizes: Sequence[int], memory: int | None) -> int:
    """Into how many parts moments of these sizes are split, to stay within ``memory``.

    >>> parts([30, 40, 50], 100)
    2
    """
    return max(1, -(-sum(sizes) // memory)) if memory else 1


def most(groups: Iterable[Sequence[int]]) -> int:
    """The largest sum.

    >>> most([[1, 2], [4], []])
    4
    """
    return max((sum(group) for group in groups), default=0)
