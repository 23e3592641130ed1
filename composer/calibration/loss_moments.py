"""Moments that know the loss: which inputs of a projection, and which of its outputs, the model's answers depend on.

Plain moments ``XᵀX`` weigh every token and every output alike. For a projection ``Y = X Wᵀ`` and the gradient ``g_t``
(out,) of the loss at its output for token t, a change ``ΔW`` changes the loss, to second order, by

    ½ E[Σ_t (g_tᵀ ΔW x_t)²]  ≈  ½ tr(M ΔW G ΔWᵀ),    G = Σ_t |g_t|² x_t x_tᵀ,    M = Σ_t g_t g_tᵀ / Σ_t |g_t|²

a Kronecker-factored Fisher matrix (K-FAC, Martens & Grosse 2015), with the products of different tokens of a sequence
left out. Whose gradients: :mod:`.slopes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..progress import SILENT, Progress
from ..scheme.layout import Projection
from ..tensors.finite import is_finite
from ..tensors.precision import exact
from .gram import Gram, root_of
from .slopes import EVEN, BatchSlopes, passes

if TYPE_CHECKING:
    from ..tasks.task import Batch, Task


@dataclass(frozen=True, eq=False)
class LossMoments:
    """Of one projection, summed over the sample.

    Attributes:
        gram: ``G``, the input's second moments weighted by ``|g_t|²``.
        metric: ``M`` (out, out), trace 1.
        answers: how many answers (tokens or examples) the loss is a mean over.
        total: ``Σ_t |g_t|²``, what all token weights add up to.
    """

    gram: Gram
    metric: Tensor
    answers: int
    total: float

    @property
    def root(self) -> Tensor:
        """``R`` (out, out) float64 with ``RᵀR = M``."""
        return root_of(self.metric)

    @property
    def weighed(self) -> Gram:
        """``G`` with token weights of mean 1, so in the units of plain moments, and ``M`` with it."""
        gram = self.gram
        scale = gram.tokens / self.total if self.total > 0 else 0.0
        return Gram(gram.matrix * scale, gram.tokens, gram.bias, gram.examples, self.metric)


def gather_loss_moments(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    projections: Sequence[Projection],
    *,
    seed: int = 0,
    label: str = "gradients of the answers",
    progress: Progress = SILENT,
) -> dict[str, LossMoments]:
    """One pass forward and back over ``batches``, without dropout; by path. The model is not changed.

    Args:
        projections: of different modules.
        seed: of the labels that are drawn.
        label: of the progress bar.

    Raises:
        ModelError: a projection that the model never runs, or gradients that are not finite.
    """
    sums = _Sums(projections, next(model.parameters()).device)
    with progress.bar(label, len(batches)) as bar:
        for one in passes(model, task, batches, projections, seed=seed):
            sums.add(one)
            bar.advance()
    return sums.moments()


class _Sums:
    """The running sums of one pass."""

    def __init__(self, projections: Sequence[Projection], device: torch.device) -> None:
        self.projections, self.device = projections, device
        self.weighted = [self._zeros(p.in_features + p.bias) for p in projections]
        self.even = [self._zeros(p.in_features + p.bias) for p in projections]
        self.metrics = [self._zeros(p.rows) for p in projections]
        self.tokens = [0] * len(projections)
        self.examples = self.answers = 0

    def _zeros(self, width: int) -> Tensor:
        return torch.zeros(width, width, dtype=exact(self.device), device=self.device)

    def add(self, one: BatchSlopes) -> None:
        """Add one batch."""
        plain: dict[tuple[tuple[int, ...], bool], Tensor] = {}  # query, key and value read the same
        for i, (projection, slopes) in enumerate(zip(self.projections, one.slopes, strict=True)):
            rows, gradients = slopes.read, slopes.gradients
            if projection.bias:
                rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
            same = slopes.source, projection.bias
            if same not in plain:
                plain[same] = rows.T @ rows
            self.weighted[i] += rows.T @ (rows * gradients.square().sum(1, keepdim=True))
            self.even[i] += plain[same]
            self.metrics[i] += gradients.T @ gradients
            self.tokens[i] += len(rows)
        self.examples += one.examples
        self.answers += one.answers

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
            metric = (self.metrics[i] / total.clamp_min(1e-30)).cpu()
            made[projection.path] = LossMoments(gram, metric, self.answers, float(total))
        return made
