"""Which units can go: those whose zeros leave nothing of them, or nothing but a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..scheme.layout import Projection
from .units import Units

Read = Callable[[str], Tensor]
"""Gives a parameter by its name."""
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Found:
    """What of some units is left.

    Attributes:
        kept: indices of the units that stay.
        shift: what the last projection's bias gains, since units that go gave a constant: (out,), or None.
    """

    kept: tuple[int, ...]
    shift: Tensor | None


def find(units: Units, read: Read, activation: Activation | None, kept: tuple[int, ...] | None = None) -> Found:
    """Look through the weights of ``units``.

    A unit can go when nothing reads it (its columns of the last projection are 0), or when it is a constant: an
    attention's value rows are 0, since the attention's weights of a head add up to 1; a neuron's row is 0, of a gated
    one both rows, or one of them where its factor is then 0. What a constant c adds, ``W_last c``, goes into the last
    projection's bias. Where that has none, only constants of 0 can go.

    Args:
        activation: of the first of a feed-forward's first projections; None where it is not known.
        kept: stay in any case.
    """
    last = units.last.of(read(units.last.weight))
    is_constant, values = _constants(units, read, activation)
    unread = ~_alive(last, 0, units.count)
    gone = unread | (is_constant & (~values.any(1) if not units.last.bias else torch.ones_like(unread)))
    if kept is not None:
        gone[list(kept)] = False
    adding = gone & ~unread & is_constant
    shift = _shift(last, (values * adding[:, None]).flatten()) if adding.any() else None
    return Found(tuple(torch.nonzero(~gone).flatten().tolist()), shift)


def _alive(matrix: Tensor, dim: int, count: int) -> Tensor:
    """Units with a line (row or column) that is not 0; lines lie across ``dim``.

    Most lines that are not 0 show it in their first numbers, so that only the others are read whole; those are 0 as a
    rule, and then one pass over all of them says so. (NaN is not 0.)
    """
    alive = (matrix.narrow(dim, 0, min(FIRST, matrix.shape[dim])) != 0).any(dim)
    rest = torch.nonzero(~alive).flatten()
    others = matrix.index_select(1 - dim, rest)
    if nonzeros(others):
        # Two extremes take a third of the time of any(); NaN is an extreme too.
        alive[rest] = (others.amax(dim) != 0) | (others.amin(dim) != 0)
    return alive.view(count, -1).any(1)


FIRST = 8
"""Numbers of a line that are looked at first."""


def nonzeros(tensor: Tensor) -> int:
    """How many numbers are not 0; of those in 32 bits NumPy says it in half of torch's time."""
    if tensor.dtype == torch.float32:
        return int(np.count_nonzero(tensor.numpy() != 0))
    return int(torch.count_nonzero(tensor))


def _rows_alive(units: Units, projection: Projection, read: Read) -> Tensor:
    return _alive(projection.of(read(projection.weight)), 1, units.count)


def _bias(projection: Projection, read: Read) -> Tensor:
    if projection.bias_name is None:
        return torch.zeros(projection.out_features)
    return projection.bias_of(read(projection.bias_name)).float()


def _constants(units: Units, read: Read, activation: Activation | None) -> tuple[Tensor, Tensor]:
    """Which units are constants, (count,), and what their columns are then, (count, columns); 0 for the others."""
    if units.kind == "attention":
        value = units.first[2]
        values = _bias(value, read).view(units.count, 1, -1).expand(-1, units.queries, -1).flatten(1)
        return ~_rows_alive(units, value, read), values
    biases = [_bias(p, read) for p in units.first]
    dead = [~_rows_alive(units, p, read) for p in units.first]
    if activation is None:  # of 0 every common one gives 0; of anything else nobody knows
        dead = [lost & (bias == 0) for lost, bias in zip(dead, biases, strict=True)]
        activation = torch.zeros_like
    factors = [activation(biases[0]), *biases[1:]]  # of a gated feed-forward the gate comes first
    is_constant = torch.stack(dead).all(0)
    for lost, factor in zip(dead, factors, strict=True):
        is_constant |= lost & (factor == 0)
    values = torch.stack(factors).prod(0)
    return is_constant, values.nan_to_num()[:, None]


def _shift(last: Tensor, values: Tensor) -> Tensor | None:
    """``W c``, summed in double precision over the columns that are not 0."""
    columns = torch.nonzero(values).flatten()
    return (last[:, columns].double() @ values[columns].double()).float() if len(columns) else None


def zeros_by_unit(units: Units, read: Read) -> Tensor:
    """Weights that are 0, by unit."""
    counts = torch.zeros(units.count, dtype=torch.long)
    for p in units.first:
        counts += (p.of(read(p.weight)) == 0).sum(1).view(units.count, -1).sum(1)
    return counts + (units.last.of(read(units.last.weight)) == 0).sum(0).view(units.count, -1).sum(1)
