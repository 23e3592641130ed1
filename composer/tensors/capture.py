"""What goes into and comes out of blocks while a model runs, and how a block is run again by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..scheme.layout import Block
from .forward import hooked

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class _Enough(Exception):  # noqa: N818  (no error)
    """Ends a pass when all that is to be recorded has been: a hook cannot stop a model in another way."""


@dataclass
class Recording:
    """Arguments of the first module of each block's chain, and each block's output, of the last pass.

    Hooks fire whenever a module runs, also when :func:`run_block` runs it with a variant's weights; so the
    recording listens only within :meth:`listening`. From the second pass on the model is run no further than to
    what was recorded last.
    """

    on: bool = False
    passes: int = 0
    last: tuple[str, int] = ("", 0)
    fired: Counter[str] = field(default_factory=Counter)
    arguments: dict[str, Arguments] = field(default_factory=dict)
    results: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Passes within the body are recorded."""
        self.on = True
        try:
            with suppress(_Enough):
                yield
        finally:
            self.on = False
        self.passes += 1
        self.fired.clear()

    def _enough(self, path: str) -> None:
        """Note that the module at ``path`` has run, and end the pass where nothing is left to record.

        The first pass tells where that is: which module was recorded last, and at which of its calls (one module may
        be called more than once in a pass). What comes after it, the classifier over a vocabulary for one, is then
        not computed.
        """
        self.fired[path] += 1
        if self.passes == 0:
            self.last = path, self.fired[path]
        elif (path, self.fired[path]) == self.last:
            raise _Enough

    def of(self, block: Block) -> tuple[Arguments, Tensor]:
        """Arguments to run ``block`` with, and what it added: (batch, length, width)."""
        arguments = self.arguments[block.chain[0]]
        result = self.results[block.tap or block.chain[-1]]
        return arguments, result - first_input(arguments) if block.residual else result


@contextmanager
def recording(model: nn.Module, blocks: Iterable[Block]) -> Iterator[Recording]:
    """Within the body passes of ``model`` can be recorded; each module is hooked once."""
    record = Recording()
    modules = dict(model.named_modules())
    blocks = list(blocks)

    def keep_arguments(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if record.on:
                record.arguments[path] = (args, kwargs)

        return hook

    def keep_result(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if record.on:
                record.results[path] = result_of(output)
                record._enough(path)

        return hook

    def keep_input(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            if record.on:
                record.results[path] = args[0]
                record._enough(path)

        return hook

    entries = dict.fromkeys(block.chain[0] for block in blocks)
    ends = dict.fromkeys(block.chain[-1] for block in blocks if not block.tap)
    taps = dict.fromkeys(block.tap for block in blocks if block.tap)
    hooks = chain(
        (modules[path].register_forward_pre_hook(keep_arguments(path), with_kwargs=True) for path in entries),
        (modules[path].register_forward_hook(keep_result(path)) for path in ends),
        (modules[path].register_forward_pre_hook(keep_input(path)) for path in taps),
    )
    with hooked(hooks):
        yield record


def run_block(
    modules: Mapping[str, nn.Module], block: Block, parameters: Mapping[str, Tensor], arguments: Arguments
) -> Tensor:
    """Run ``block`` on captured arguments with other parameters: what it adds, (batch, length, width).

    The model's own modules are used without being changed (``torch.func.functional_call``), so variants
    cost their parameters and nothing else. Gradients flow to ``parameters``.
    """
    args, kwargs = arguments
    tapped: list[Tensor] = []
    taps = (modules[block.tap],) if block.tap else ()
    with hooked(tap.register_forward_pre_hook(lambda _, args: tapped.append(args[0])) for tap in taps):
        output: Any = None
        for i, path in enumerate(block.chain):
            local = {
                name.removeprefix(f"{path}."): value
                for name, value in parameters.items()
                if name.startswith(f"{path}.")
            }
            inputs = (args, kwargs) if i == 0 else ((result_of(output),), {})
            output = functional_call(modules[path], local, *inputs, strict=False)
    result = tapped[-1] if tapped else result_of(output)
    return result - first_input(arguments) if block.residual else result


def owned(parameters: Iterable[str], block: Block) -> list[str]:
    """Of the names of a model's parameters those that ``block`` tunes: all inside it that no other block reads."""
    return [name for name in parameters if block.tunes(name)]


def first_input(arguments: Arguments) -> Tensor:
    """The hidden states that a module was called with."""
    args, kwargs = arguments
    return args[0] if args else kwargs["hidden_states"]


def result_of(output: Any) -> Tensor:
    """The hidden states that a module returned, alone or before other things."""
    return output if isinstance(output, torch.Tensor) else output[0]
