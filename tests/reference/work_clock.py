"""A clock that is driven by what torch computes: the same work takes the same time on every machine, however loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

CALL, NUMBER, FLOP = 5e-6, 1e-9, 1e-10
"""Seconds of an operation, and of each number that it reads or writes, and of each of a product's multiplications."""
CUBIC = ("cholesky", "linalg", "triangular", "inverse", "svd", "qr", "lu_")
"""Operations on matrices that take as many steps as a product of two such ones."""


class WorkClock(TorchDispatchMode):
    """While it is entered, ``now()`` goes on by what each operation of torch costs on an imagined machine."""

    seconds = 0.0

    def now(self) -> float:
        """Instead of ``time.perf_counter``."""
        return self.seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [*tensors_of(args), *tensors_of((out,))]
        self.seconds += CALL + NUMBER * sum(tensor.numel() for tensor in tensors)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.seconds += FLOP * count(*args, **(kwargs or {}), out_val=out)
        elif any(word in str(func) for word in CUBIC):
            self.seconds += FLOP * max((t.numel() * t.shape[-1] for t in tensors if t.dim() > 1), default=0)
        return out


def tensors_of(values: Any) -> Iterator[Tensor]:
    """All tensors among the values and in the lists that are among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_of(value)
