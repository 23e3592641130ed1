"""Moments that know the loss: which inputs of a projection, and which of its outputs, the model's answers depend on.

Plain moments ``XᵀX`` weigh every token and every output alike. For a projection ``Y = X Wᵀ`` and the gradient ``g_t``
(out,) of the loss at its output for token t, a change ``ΔW`` changes the loss, to second order, by

    ½ E[Σ_t (g_tᵀ ΔW x_t)²]  ≈  ½ tr(M ΔW G ΔWᵀ),    G = Σ_t |g_t|² x_t x_tᵀ,    M = Σ_t g_t g_tᵀ / Σ_t |g_t|²

a Kronecker-factored Fisher matrix (K-FAC, Martens & Grosse 2015), with the products of different tokens of a sequence
left out. The labels are drawn from the model's own probabilities (the true Fisher matrix; those of the data give the
empirical one, which at a fitted model hardly tells anything: Kunstner et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..progress import SILENT, Progress
from ..scheme.layout import Projection
from ..tasks.loss import loss_and_logits
from ..tensors.finite import is_finite
from ..tensors.forward import answering, hooked, real_rows, to_device_of
from .gram import Gram

if TYPE_CHECKING:
    from ..tasks.task import Batch, Task

EVEN = 0.05
"""The part of the token weights that is spread evenly: some tokens no gradient sees, and they must not run wild."""


@dataclass(frozen=True, eq=False)
class LossMoments:
    """Of one projection, summed over the sample.

    Attributes:
        gram: ``G``, the input's second moments weighted by ``|g_t|²``.
        metric: ``M`` (out, out), trace 1.
        answers: how many answers (tokens or examples) the loss is a mean over.
    """

    gram: Gram
    metric: Tensor
    answers: int

    @property
    def root(self) -> Tensor:
        """``R`` (out, out) float64 with ``RᵀR = M``."""
        values, vectors = torch.linalg.eigh(self.metric.double())
        return values.clamp_min(0).sqrt()[:, None] * vectors.T


def gather_loss_moments(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    projections: Sequence[Projection],
    *,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, LossMoments]:
    """One pass forward and back over ``batches``, without dropout; by path. The model is not changed.

    Args:
        projections: of different modules; each is called once in a pass.
        seed: of the labels that are drawn.

    Raises:
        ModelError: a projection that the model never runs, or gradients that are not finite.
    """
    sums = _Sums(model, projections)
    draw = torch.Generator().manual_seed(seed)
    with answering(model), torch.enable_grad(), progress.bar("gradients of the answers", len(batches)) as bar:
        for batch in batches:
            here = to_device_of(model, batch)
            with sums.hooked(model):
                loss, count, logits = loss_and_logits(model, task, here)
            sums.add(task.real_tokens(here), *_slope(loss, count, logits, task.asked(here), draw))
            sums.answers += count
            bar.advance()
    return sums.moments()


def _slope(
    loss: Tensor, count: int, logits: Tensor | None, asked: Tensor | None, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What is differentiated, and with which outer gradient: the summed loss of labels drawn from the model.

    For a label drawn from ``p = softmax(z)`` the gradient of its cross entropy in ``z`` is ``p`` less one at the label.
    Where there are no logits of classes (spans of answers, one number as the answer) it is the data's own loss.
    """
    if logits is None or logits.shape[-1] == 1:
        return loss, torch.full_like(loss, count)
    rows = logits[asked] if asked is not None else logits.flatten(0, -2)
    chances = rows.detach().float().softmax(-1)
    labels = torch.multinomial(chances.cpu(), 1, generator=draw).to(chances.device)
    return rows, (chances - torch.zeros_like(chances).scatter_(1, labels, 1.0)).to(rows)


class _Sums:
    """The running sums of one pass."""

    def __init__(self, model: nn.Module, projections: Sequence[Projection]) -> None:
        self.projections = projections
        self.device = next(model.parameters()).device
        self.weighted = [self._zeros(p.in_features + p.bias) for p in projections]
        self.even = [self._zeros(p.in_features + p.bias) for p in projections]
        self.metrics = [self._zeros(p.out_features) for p in projections]
        self.tokens = [0] * len(projections)
        self.examples = self.answers = 0
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def _zeros(self, width: int) -> Tensor:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return torch.zeros(width, width, dtype=dtype, device=self.device)

    def hooked(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the body a pass of ``model`` leaves in ``seen`` what each projection reads and gives."""
        self.seen = {}
        return hooked(
            model.get_submodule(p.path).register_forward_hook(self._keeper(i)) for i, p in enumerate(self.projections)
        )

    def _keeper(self, i: int) -> Any:
        def keep(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self.seen[i] = args[0].detach(), output

        return keep

    def add(self, real: Mapping[str, Tensor], value: Tensor, outer: Tensor) -> None:
        """Add one batch: the gradients of ``Σ outer · value`` at every output, at real tokens."""
        if lost := [p.path for i, p in enumerate(self.projections) if i not in self.seen]:
            raise ModelError(f"{lost[0]}: the model never runs this projection on the task's batches")
        outputs = [self.seen[i][1] for i in range(len(self.projections))]
        gradients = torch.autograd.grad(value, outputs, outer)
        for i, (projection, gradient) in enumerate(zip(self.projections, gradients, strict=True)):
            mask = real[projection.stream]
            rows = real_rows(self.seen[i][0], mask, projection.path).float()
            slopes = real_rows(gradient, mask, projection.path).float()
            if projection.bias:
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            self.weighted[i] += rows.T @ (rows * slopes.square().sum(1, keepdim=True))
            self.even[i] += rows.T @ rows
            self.metrics[i] += slopes.T @ slopes
            self.tokens[i] += len(rows)
        self.examples += len(next(iter(real.values())))
        self.seen = {}

    def moments(self) -> dict[str, LossMoments]:
        """What was summed, by path."""
        made = {}
        for i, projection in enumerate(self.projections):
            total = self.metrics[i].trace()
            even = self.even[i] * (total / max(1, self.tokens[i]))
            matrix = ((1 - EVEN) * self.weighted[i] + EVEN * even).cpu()
            if not is_finite(matrix):
                raise ModelError(f"{projection.path}: what it reads, or its gradient, is not finite on the sample")
            gram = Gram(matrix, self.tokens[i], projection.bias, self.examples)
            made[projection.path] = LossMoments(gram, (self.metrics[i] / total.clamp_min(1e-30)).cpu(), self.answers)
        return made
