"""A scale and a shift taken up by the linear layers that read them.

What reads ``y = w∘x + b`` by ``W y + c`` reads ``x`` by ``W diag(w) x + (W b + c)``: the norm is gone. That is exact
where nobody else reads ``y``. In pre-norm layers nobody does; in post-norm layers (BERT) the stream is ``y`` itself,
and the scale and shift stay. Who reads it is found by trying: with another ``w`` and ``b``, and the readers' weights
set against that, the model must answer the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..models.modeling_shrunk import NoNorm
from ..scheme.layout import Layout
from ..tasks.loss import loss_and_logits
from ..tensors.forward import answering, hooked, to_device_of

if TYPE_CHECKING:
    from ..tasks.task import Batch, Task

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest, by which a model still answers the same."""


def fold_norms(model: nn.Module, layout: Layout, task: Task, batch: Batch) -> list[str]:
    """Fold the scales and shifts inside layers that can be, in place; returns their paths.

    Those that are read outside of their layer stay, so that the body of a model gives what it gave; and with them some
    norm of every model, whose shape says to plain transformers that it is none.
    """
    batch = to_device_of(model, batch)
    folded = []
    with answering(model):
        readers = _readers(model, layout, task, batch)
        before = _answers(model, task, batch)
        for path, own in readers.items():
            norm: Any = model.get_submodule(path)
            if not own or (len(norm.weight) > 1 and any(reader.bias is None for reader in own)):
                continue
            if _alone(norm, own, lambda: _answers(model, task, batch), before):
                _take_up(norm, own)
                model.set_submodule(path, nn.Identity())
                folded.append(path)
    return folded


@dataclass(frozen=True)
class _Reader:
    """A linear layer: its weight, seen as (out, in), and its bias."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, module: Any) -> _Reader:
        """GPT-2's stores (in, out)."""
        return cls(module.weight.T if hasattr(module, "nf") else module.weight, module.bias)

    def take_up(self, scale: Tensor, shift: Tensor | None) -> None:
        """Read ``x`` as it read ``scale∘x + shift``."""
        if shift is not None and self.bias is not None:
            self.bias.add_(self.weight @ shift)
        self.weight.mul_(scale)


def is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer, as torch's or as GPT-2's."""
    return isinstance(module, nn.Linear) or hasattr(module, "nf")


def _readers(model: nn.Module, layout: Layout, task: Task, batch: Batch) -> dict[str, list[_Reader]]:
    """Path of each norm in a layer -> linear layers there that are called with what it gives, each weight once."""
    given: dict[str, Tensor] = {}  # held, so that no other tensor comes to lie in the same place
    readers: dict[str, dict[int, _Reader]] = {}

    def reads(module: Any, inputs: Sequence[Any], layer: str) -> None:
        for path, output in given.items():
            same = inputs and inputs[0].data_ptr() == output.data_ptr() and inputs[0].shape == output.shape
            if same and path.startswith(layer):
                readers[path][id(module.weight)] = _Reader.of(module)

    def hooks() -> Iterator[Any]:
        for layer in (f"{block.path}." for block in layout.whole.at("layer")):
            for path, module in model.named_modules():
                if path.startswith(layer) and isinstance(module, NoNorm):
                    readers[path] = {}
                    yield module.register_forward_hook(lambda _, __, y, path=path: given.update({path: y}))
                elif path.startswith(layer) and is_linear(module):
                    yield module.register_forward_pre_hook(partial(reads, layer=layer))

    with hooked(hooks()):
        task.loss(model, batch)
    return {path: list(own.values()) for path, own in readers.items()}


def _answers(model: nn.Module, task: Task, batch: Batch) -> Tensor:
    loss, _, logits = loss_and_logits(model, task, batch)
    return loss if logits is None else logits


def _alone(norm: NoNorm, readers: Sequence[_Reader], answers: Any, before: Tensor) -> bool:
    """Whether nobody but ``readers`` looks at what the norm gives; all weights are put back."""
    touched = [t for r in readers for t in (r.weight, r.bias) if t is not None] + [norm.weight]
    kept = [(tensor, tensor.clone()) for tensor in touched]
    draw = torch.Generator().manual_seed(0)
    scale = (0.5 + torch.rand(norm.weight.shape[1], generator=draw)).to(norm.weight.device)
    shift = torch.rand(norm.weight.shape[1], generator=draw).to(scale) if len(norm.weight) > 1 else None
    norm.weight.mul_(scale)
    if shift is not None:
        norm.weight[1].add_(shift)
    for reader in readers:
        reader.take_up(1 / scale, None if shift is None else -shift / scale)
    after = answers()
    for tensor, value in kept:
        tensor.copy_(value)
    return bool((after - before).abs().max() <= TOLERANCE * before.abs().max())


def _take_up(norm: NoNorm, readers: Sequence[_Reader]) -> None:
    scale, shift = norm.weight[0], norm.weight[1] if len(norm.weight) > 1 else None
    for reader in readers:
        reader.take_up(scale, shift)
