"""Norms in closed form: each becomes the scale and shift of every feature that come nearest to what it gave.

A norm divides by a deviation that differs from token to token. In its place stands ``y = w∘x + b`` (NoNorm of
MobileBERT, Sun et al. 2020; nn_pruning starts it from the means of the tokens' deviations). Here each feature's ``w``
and ``b`` are the least-squares fit of what the norm gave in the base model on what it gets now: from the first to
the last, each with those before it replaced already and with the projections before it refitted, in one sweep
(:mod:`composer.composing.refit`), so that a later one makes up for what earlier ones did. A norm without a shift
(RMSNorm) is a scale alone: ``w = Σxy / Σx²``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from ..composing.refit import Further, Pairs
from ..errors import ModelError
from ..models.modeling_shrunk import NoNorm
from ..scheme.layout import Block, Layout, Stream
from ..tensors.forward import hooked, real_rows
from ..tensors.lockstep import current


@dataclass(frozen=True)
class Fitted:
    """What a scale and a shift leave of a norm: squared error over the variance of what it gave, on real tokens."""

    path: str
    error: float


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a LayerNorm or RMSNorm over the last dimension."""
    weight = getattr(module, "weight", None)
    named = type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
    return (isinstance(module, nn.LayerNorm) or named) and isinstance(weight, Tensor) and weight.dim() == 1


def norms_of(model: nn.Module, layout: Layout, name: str) -> dict[str, int]:
    """Path of each norm of the stream -> vectors that take its place: 2, of a scale alone 1.

    Norms inside attentions, of single heads, are none of the stream; nor are those over tables of positions.

    Raises:
        ModelError: there is none.
    """
    inside = tuple(f"{target.path}." for target in layout.whole.targets if target.kind == "attention")
    tables = ("encoder.LayerNorm",)  # DeBERTa's, of relative positions
    found = {
        path: 2 if isinstance(module, nn.LayerNorm) or getattr(module, "bias", None) is not None else 1
        for path, module in model.named_modules()
        if is_norm(module) and not path.startswith(inside) and not path.endswith(tables)
    }
    if not found:
        simple = any(isinstance(module, NoNorm) for module in model.modules())
        why = "its norms are a scale and a shift already" if simple else "it has no LayerNorm or RMSNorm"
        raise ModelError(f"--norm: {name}: {why}; leave it out")
    return found


@contextmanager
def fitting(
    model: nn.Module, base: nn.Module, norms: Mapping[str, int], layout: Layout
) -> Iterator[tuple[Further, list[Fitted]]]:
    """Put scales and shifts in place of the norms of ``model``; within the body a sweep fits them.

    Yields what the sweep is given (:func:`composer.composing.refit.sweep`), and the list that it fills.

    Args:
        base: whose norms' outputs are wanted; not changed.
        norms: path -> vectors.
    """
    fitted: list[Fitted] = []
    new = {path: _put(model, path, vectors) for path, vectors in norms.items()}

    def fit(path: str, pairs: Pairs) -> None:
        if path in {one.path for one in fitted}:
            raise ModelError(f"--norm: {path}: runs more than once in a pass; only norms that run once can go")
        stream, sums = _stream(path, layout), _Sums()
        for pair in pairs:
            wanted, rows = pair.theirs.to(path), pair.ours.to(path)
            sums.add(*(real_rows(states, pair.real[stream], path).double() for states in (rows, wanted)))
        fitted.append(Fitted(path, sums.fit(new[path])))

    with _stopping(base, norms, at_end=True), _stopping(model, norms, at_end=False):
        yield {path: partial(fit, path) for path in norms}, fitted
    if lost := set(norms) - {one.path for one in fitted}:
        raise ModelError(f"--norm: {min(lost)}: does not run in a pass; only norms that do can go")


class _Sums:
    """Sums over tokens, of each feature: float64."""

    def __init__(self) -> None:
        self.count = 0
        self.x = self.y = self.xx = self.xy = self.yy = torch.zeros(())

    def add(self, x: Tensor, y: Tensor) -> None:
        """Rows of inputs and of what is wanted, (tokens, width)."""
        self.count += len(x)
        self.x, self.y = self.x + x.sum(0), self.y + y.sum(0)
        self.xx, self.xy, self.yy = self.xx + (x * x).sum(0), self.xy + (x * y).sum(0), self.yy + (y * y).sum(0)

    def fit(self, norm: NoNorm) -> float:
        """Set the norm's vectors to the best ones; returns its relative error."""
        n, tiny = max(self.count, 1), 1e-12
        if len(norm.weight) == 1:
            scale, shift = self.xy / self.xx.clamp_min(tiny), torch.zeros_like(self.x)
        else:
            variance = (self.xx - self.x * self.x / n).clamp_min(tiny * n)
            scale = (self.xy - self.x * self.y / n) / variance
            shift = (self.y - scale * self.x) / n
        vectors = torch.stack([scale, shift])[: len(norm.weight)]
        with torch.no_grad():
            norm.weight.copy_(vectors)
        left = self.yy - 2 * (scale * self.xy + shift * self.y)
        left = left + scale * scale * self.xx + 2 * scale * shift * self.x + n * shift * shift
        return float(left.sum() / (self.yy - self.y * self.y / n).sum().clamp_min(tiny))


def _put(model: nn.Module, path: str, vectors: int) -> NoNorm:
    old = model.get_submodule(path)
    weight: Any = old.weight
    new = NoNorm(weight.shape[-1], vectors).to(weight.device)
    model.set_submodule(path, new)
    return new


@contextmanager
def _stopping(model: nn.Module, paths: Iterable[str], *, at_end: bool) -> Iterator[None]:
    """Within the body each pass of ``model`` stops at every norm, with what it gives, or else with what it gets."""

    def before(path: str) -> Any:
        return lambda _, given: current().hand_over(path, given[0])

    def after(path: str) -> Any:
        return lambda _, __, output: current().hand_over(path, output)

    modules = {path: model.get_submodule(path) for path in paths}
    hooks = (
        m.register_forward_hook(after(path)) if at_end else m.register_forward_pre_hook(before(path))
        for path, m in modules.items()
    )
    with hooked(hooks):
        yield


def _stream(path: str, layout: Layout) -> Stream:
    """Whose tokens a norm reads: those of the layer whose path begins like its own."""

    def shared(layer: Block) -> int:
        both = zip(layer.path.split("."), path.split("."), strict=False)
        return sum(1 for _ in takewhile(lambda parts: parts[0] == parts[1], both))

    return max(layout.whole.at("layer"), key=shared).stream
