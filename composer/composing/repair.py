"""What is left of pruned targets, refitted by masked least squares (:mod:`composer.training.blocks.moments`).

Each pruned matrix is refitted on its mask, on the base model's inputs; what removed heads and neurons did is taken over
by the projection that reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..pruning.cutter import Grams, Selection
from ..scheme.layout import Layout, Projection, Target
from ..tensors import masks
from ..training.blocks.moments import BaseMoments, RegressionSums, kept, matrix

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-2
"""Residual of a row relative to its right side: more than trainers leave, and near enough to tell what repair is
worth."""
SOLVED = 1 << 30
"""Most bytes of refitted matrices that are kept: curves and proposals prune targets as sensitivities do."""


class Memory:
    """Moments with their factor, by projection and dead columns, shared by calls for the same target."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], BaseMoments] = {}
        self._cut: dict[tuple[Any, ...], RegressionSums] = {}

    def cut(self, problem: tuple[Any, ...], live: Tensor, make: Callable[[], BaseMoments]) -> RegressionSums:
        """Those of a projection's inputs in the columns ``live``; ``problem`` names both, the columns last."""
        if problem not in self._cut:
            last = problem[:2]
            if last not in self._known:
                self._known[last] = make()
            self._cut[problem] = self._known[last].cut(live)
        return self._cut[problem]


@dataclass(frozen=True)
class Refit:
    """A projection that makes good what was removed; ``before`` are the heads or neurons that it reads, if pruned."""

    last: Projection
    before: Target | None = None


class Repair:
    """Refits pruned targets of the base model; solutions are kept, as the same target is pruned again and again."""

    def __init__(self, layout: Layout, parameters: Mapping[str, Tensor], damping: float) -> None:
        """Nothing is solved yet.

        Args:
            parameters: the base model's, by name; they are not changed.
            damping: relative to the mean of the moments' diagonal.
        """
        self.layout, self.parameters, self.damping = layout, parameters, damping
        self._solved: dict[tuple[Any, ...], Tensor] = {}

    def inputs(self, selections: Iterable[Selection]) -> list[str]:
        """Projections whose moments are looked at."""
        return list(dict.fromkeys(refit.last.path for refit in self._refits(selections)))

    def refitted(
        self,
        selections: Sequence[Selection],
        weights: Mapping[str, Tensor],
        removed: Mapping[str, Tensor],
        grams: Grams,
        memory: Memory | None = None,
    ) -> dict[str, Tensor]:
        """``weights`` with every projection refitted that can make good what was removed, and those projections.

        Args:
            selections: what was pruned.
            weights: pruned, by parameter name.
            removed: keep-masks, by parameter name.
            grams: the moments of :meth:`inputs`.
        """
        refitted = {name: value.clone() for name, value in weights.items()}
        memory = memory or Memory()
        for refit in self._refits(selections):
            last = refit.last
            for name in last.parameters:
                refitted.setdefault(name, self.parameters[name].detach().clone())
            solved = self._solution(refit, refitted, removed, grams, memory)
            last.of(refitted[last.weight]).copy_(solved[:, : last.in_features])
            if last.bias_name:
                last.bias_of(refitted[last.bias_name]).copy_(solved[:, last.in_features])
        return refitted

    def _solution(
        self,
        refit: Refit,
        weights: Mapping[str, Tensor],
        removed: Mapping[str, Tensor],
        grams: Grams,
        memory: Memory,
    ) -> Tensor:
        """The refitted matrix of one projection, (out, in), with the bias as a further column where there is one."""
        last = refit.last
        live = masks.live_columns(refit.before, Target("", "linear", (last,)), removed)
        start = matrix(weights, last)
        keep = kept(removed, last, start.device)
        problem = (last.path, last.part, *live.logical_not().nonzero().flatten().tolist())
        same = *problem, _digest(start), _digest(keep)
        if same in self._solved:
            return self._solved[same]
        moments = memory.cut(problem, live, lambda: BaseMoments(grams[last.path], last, self.parameters))
        solved = moments.solve(start, keep, self.damping, tolerance=TOLERANCE)
        if sum(solution.nbytes for solution in self._solved.values()) + solved.nbytes <= SOLVED:
            self._solved[same] = solved
        return solved

    def _refits(self, selections: Iterable[Selection]) -> list[Refit]:
        refits: dict[tuple[str, Any], Refit] = {}
        for selection in selections:
            for part in selection.shape.parts(self.layout, selection.path):
                if selection.shape.by_heads:
                    own = [Refit(self.layout.out_projection(selection.path), part)]
                elif selection.shape.kind == "neuron":
                    own = [Refit(part.projections[-1], part)]
                else:
                    own = [Refit(projection) for projection in part.projections]
                for refit in own:  # an out-projection that loses weights too knows already whose heads it reads
                    refits.setdefault((refit.last.path, refit.last.part), refit)
        return list(refits.values())


def removed_weights(layout: Layout, paths: Iterable[str], removed: masks.Masks) -> dict[str, int]:
    """Target path -> how many of its weights are masked."""
    return {
        path: sum(int((~p.of(removed[p.weight])).sum()) for p in layout.target(path).projections if p.weight in removed)
        for path in paths
    }


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().cpu().numpy().tobytes()).hexdigest()
