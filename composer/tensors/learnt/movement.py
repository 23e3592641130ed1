"""Movement pruning (Sanh et al. 2020): what grows in magnitude while the model learns gains, what shrinks loses."""

from __future__ import annotations

from torch import Tensor

from .adam import AdamScores
from .scores import ranks


class MovementScores(AdamScores):
    """A rank by magnitude at first, then moved by Adam.

    The gradient of a score is ``∂L/∂W' ∘ W`` (equation 3): what grows in magnitude gains. Scores begin as ranks, from 0
    to 1 within each matrix, since of a model that has been fine-tuned already the gradients are noise around 0: scores
    that begin at 0 take away large weights as readily as small ones. A training of ``n`` steps moves a score by about
    ``PACE · √n`` where its gradients are noise and by ``PACE · n`` where they agree.
    """

    def begin(self, weight: Tensor) -> Tensor:
        return ranks(weight.abs())
