"""Wanda: weights and activations (Sun et al. 2023, "A simple and effective pruning approach for LLMs")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .criterion import Stats, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from ...scheme.layout import Target
    from ...scheme.shapes import Shape


class Wanda:
    """Score of a weight: ``|w_ij| · ‖x_j‖`` with ``‖x_j‖ = sqrt(G_jj)``, compared within its output row.

    ``W`` is (out, in), ``G = XᵀX`` (in, in) over all tokens of the calibration sample.

    A row gives ``rate * in`` weights; where that is no whole number rows differ by one, so that the matrix's count
    is exact (the paper cuts the fraction off).
    """

    name = "wanda"
    needs: frozenset[str] = frozenset({"gram"})
    shapes: frozenset[str] = frozenset({"unstructured", "per-row", "N:M"})
    rowwise = True

    def score(self, target: Target, weights: list[Tensor], stats: Stats, shape: Shape | None = None) -> Tensor:
        """(out, in); see :class:`composer.pruning.criteria.criterion.Criterion`."""
        from ...tensors.least_squares import wanda_scores

        return wanda_scores(weights[0], statistic("gram", target, self.name, stats)[0].inputs)
