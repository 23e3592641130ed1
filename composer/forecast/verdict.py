"""Whether composing pays, and how few steps composed models must need for it: arithmetic on predicted seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..files.jsonfile import read_json
from ..report.ledger import pays_from
from ..report.records import Comparison
from ..training.length import joint_steps

ASSUMED = 0.25
"""Share of the baseline's steps that composed models need, where nobody has measured it."""
LEARNT = 0.0
"""The same after joint tuning of enough steps (:func:`composer.training.length.joint_steps`)."""


@dataclass(frozen=True)
class Share:
    """Which share of the baseline's steps the composed models need to reach its final loss, and who says so."""

    value: float
    source: str

    @classmethod
    def of(cls, share: float | None, comparison: Path, *, steps: int | None = None, together: int = 0) -> Share:
        """As the user says, else the mean of an earlier comparison's, else :data:`ASSUMED`.

        Args:
            steps: of one baseline.
            together: in which all configurations learn together; where they are enough for that length,
                :data:`LEARNT`.

        Raises:
            RecipeError: a share that is none.
        """
        if share is not None:
            if not 0 <= share <= 1:
                raise RecipeError(f"--share: got {share:g}; allowed: 0 to 1")
            return cls(share, "given")
        result = (read_json(comparison).get("result") or {}) if comparison.is_file() else {}
        rows = [row for row in Comparison.read(result).rows if row.budgets]
        if not rows and together and steps:
            return cls._after_joint_tuning(steps, together)
        if not rows:
            return cls(ASSUMED, "assumed; --share says otherwise")
        shares = [row.share for row in rows]
        never = f", of which {shares.count(None)} never reached it" if None in shares else ""
        mean = sum(1.0 if share is None else share for share in shares) / len(shares)
        return cls(mean, f"mean of {len(shares)} in {comparison.name}{never}")

    @classmethod
    def _after_joint_tuning(cls, steps: int, together: int) -> Share:
        needed = joint_steps(steps, None)
        if together >= needed:
            many = "as many" if needed <= steps else f"{needed / steps:.3g} times as many"
            return cls(LEARNT, f"measured on T5 after {many} joint steps; --share says otherwise")
        return cls(ASSUMED, f"assumed, as {needed:,} joint steps would be enough on T5; --share says otherwise")


@dataclass(frozen=True)
class Costs:
    """Predicted seconds of both sides.

    Attributes:
        blocks: of the block phase for the first 1, 2, … configurations.
        whole: of fine-tuning one configuration whole, as the baseline does.
        compose: of composing one model.
        search: of the learning-rate search, composed side less baseline.
    """

    blocks: Sequence[float]
    whole: float
    compose: float
    search: float

    def pays_from(self, share: float) -> int | None:
        """As the ledger of a comparison has it; pruning is on both sides."""
        gained = (1 - share) * self.whole - self.compose
        return pays_from([self.search + blocks - k * gained for k, blocks in enumerate(self.blocks, 1)])

    @property
    def break_even(self) -> float:
        """The largest share with which composing costs no more here; below 0: not even without a step."""
        n = len(self.blocks)
        return 1 - (self.search + self.blocks[-1] + n * self.compose) / (n * self.whole)


def verdict_of(costs: Costs, share: Share, totals: dict[str, float]) -> dict[str, Any]:
    """From how many configurations on composing pays, and the share up to which it pays here; with a sentence."""
    here, start, most = len(costs.blocks), costs.pays_from(share.value), costs.break_even
    ours, theirs = totals["composed"], totals["baseline"]
    pays = (
        f"composing pays from {start} configuration{'' if start == 1 else 's'} on; here there are {here}"
        if start
        else f"composing does not pay at these settings, however many configurations; here there are {here}"
    )
    ratio = f"{theirs / ours:.1f}x less" if ours <= theirs else f"{ours / theirs:.1f}x more"
    bound = (
        f"It pays here as long as composed models need at most {most:.0%} of the baseline's steps."
        if most > 0
        else "It would not pay here even if composed models needed no step at all."
    )
    needed = f"{share.value:.3g} of the baseline's steps" if share.value else "no step of their own"
    text = (
        f"If composed models need {needed} ({share.source}), {pays}, "
        f"with {ratio} work in all ({ours:.0f} s against {theirs:.0f} s). {bound}"
    )
    return {"pays_from": start, "here": here, "break_even_share": most, "text": text}
