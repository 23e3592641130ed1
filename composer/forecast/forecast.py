"""What a run of a recipe will take: blocks, disk, memory, steps; with a few timed batches, seconds and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..models.folder import DEMO
from ..progress import SILENT, Progress
from ..pruning.criteria import CRITERIA
from ..pruning.criteria.choice import criteria_of
from ..steps.settings import model_settings
from ..training.blocks import TRAINERS
from ..training.length import about_length
from ..training.work import Work
from ..workspace import Given, Workspace
from .block_workload import tuning
from .disk_and_memory import block_rows, disk, memory, missing
from .footprint import Footprint
from .planned_scheme import planned_scheme
from .stored import stored_blocks
from .verdict import Costs, Share, verdict_of
from .workload import Blocks, Key, Setting, pruning, summed

if TYPE_CHECKING:
    from .timing.pieces import Seconds


def forecast(
    recipe: Given, *, time: bool = False, share: float | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Plain data for a table; nothing is written, and without ``time`` no model is loaded.

    Args:
        time: time a few real batches, and predict seconds.
        share: of the baseline's steps that composed models will need; see :meth:`.verdict.Share.of`.
    """
    space = Workspace.of(recipe)
    TRAINERS.get(space.recipe.trainer)  # says what is allowed
    ahead = Forecast(space, share, read=time)
    counted = ahead.counted()
    return {**counted, **ahead.timed(progress)} if time else counted


class Row(NamedTuple):
    """A kind of work, in the words of a comparison's ledger: all of it, and what of it is to do."""

    name: str
    side: Literal["baseline", "composed", "both"]
    whole: list[Work]
    to_do: list[Work]


class Forecast:
    """The forecast of one workspace.

    Args:
        share: what the user says of it.
        read: the data are needed anyway, so that examples can be counted.
    """

    def __init__(self, space: Workspace, share: float | None, *, read: bool) -> None:
        self.space = space
        scheme, layout, r = planned_scheme(space), space.base.layout, space.recipe
        needs = {need for one in criteria_of(scheme, CRITERIA.get(r.criterion)()) for need in one.needs}
        valid = min(r.block.valid_size, r.valid_size or r.block.valid_size)
        valid = min(valid, len(space.examples("valid"))) if read else valid
        self.steps = self._steps()
        sizes, kept = Footprint(space.base, scheme, r.metric), self._kept_answers()
        self.setting = Setting(scheme, layout, r, sizes, frozenset(needs), valid, self.steps, kept)
        self.together = self.setting.together.steps if TRAINERS.get(r.trainer).in_context else 0
        compared = space.folder / "results" / "comparison.json"
        self.share = Share.of(share, compared, steps=self.steps, together=self.together)
        self.stored = stored_blocks(space, scheme)
        self.n = len(scheme.roots)

    def counted(self) -> dict[str, Any]:
        """All but seconds."""
        blocks, work = block_rows(self.setting, self.stored), self._work()
        return {
            "folder": str(self.space.folder),
            "configurations": self.n,
            "criterion": self.space.recipe.criterion,
            "trainer": self.space.recipe.trainer,
            "by_block": any(piece.unit == "block" for row in work for piece in row.whole),
            "blocks": blocks,
            "disk": disk(self.setting, self.stored, blocks, self.space.folder / "models"),
            "memory": memory(self.setting, self.stored),
            "steps": self.steps,
            "share": {"value": self.share.value, "from": self.share.source},
            "length": about_length(self.steps, self.together) if self.steps and self.together else None,
            "work": [
                {
                    "work": row.name,
                    "side": row.side,
                    "pieces": _pieces(row.whole),
                    "to_do": _pieces(row.to_do),
                    "seconds": None,
                }
                for row in work
            ],
            "verdict": None,
        }

    def timed(self, progress: Progress) -> dict[str, Any]:
        """Seconds of the same work, and the verdict.

        Raises:
            RecipeError: no data, which steps are counted and batches are taken from.
        """
        from .timing.pieces import Pieces, measure

        work = self._work()
        each = measure(Pieces(self.space, self.setting), [piece for row in work for piece in row.whole], progress)
        rows = []
        totals = {"baseline": 0.0, "composed": 0.0}
        for row in work:
            seconds = _seconds(row.whole, each)
            for side in totals:
                totals[side] += seconds[1] if row.side in (side, "both") else 0.0
            pieces = {"pieces": _pieces(row.whole), "to_do": _pieces(row.to_do)}
            to_do = _seconds(row.to_do, each)
            rows.append({"work": row.name, "side": row.side, **pieces, "seconds": seconds, "seconds_to_do": to_do})
        return {
            "work": rows,
            "seconds": totals,
            "each": [
                {"unit": unit, "of": list(of), "seconds": took.about, "range": [took.least, took.most]}
                for (unit, of), took in each.items()
            ],
            "device": self.space.device,
            "verdict": verdict_of(self._costs(each), self.share, totals),
        }

    def _costs(self, each: Mapping[Key, Seconds]) -> Costs:
        """Predicted seconds of both sides, for every number of configurations up to those there are."""
        search = {side: _seconds(self._search(side), each)[1] for side in ("baseline", "composed")}
        return Costs(
            [_seconds(self._tuning(k), each)[1] for k in range(1, self.n + 1)],
            _seconds(self._whole(1.0), each)[1] / self.n,
            _seconds(self._composing(), each)[1] / self.n,
            search["composed"] - search["baseline"],
        )

    def _work(self) -> list[Row]:
        """All kinds of work; those of which there is none are left out, pruning and blocks never."""
        setting, stored = self.setting, self.stored
        leaves = missing(setting.pruned_nodes(), stored.pruned)
        pruning_left = list(pruning(leaves, setting, stored.scored))
        gathered = any(work.unit == "gather" for work in pruning_left)
        left = Blocks(missing(setting.tuned_nodes(), stored.tuned), self.n, gathered, stored.joint)
        until = "fine-tune composed models until they reach the baseline's loss"
        rows = [
            Row("prune every variant", "both", list(pruning(setting.pruned_nodes(), setting)), pruning_left),
            Row(
                "block-level fine-tuning, once for all",
                "composed",
                self._tuning(self.n),
                list(tuning(left, setting)),
            ),
        ]
        more = [
            _to_do("compose the models", "composed", self._composing()),
            _to_do("learning-rate search", "baseline", self._search("baseline")),
            _to_do("learning-rate search", "composed", self._search("composed")),
            _to_do("fine-tune every configuration whole", "baseline", self._whole(1.0)),
            _to_do(until, "composed", self._whole(self.share.value)),
        ]
        return rows + [row for row in more if row.whole]

    def _tuning(self, k: int) -> list[Work]:
        """All blocks of the first ``k`` configurations."""
        scheme = self.setting.scheme
        below = {node.hash for i in range(k) for node in scheme.below(scheme.root(i))}
        nodes = [node for node in self.setting.tuned_nodes() if node.hash in below]
        return list(tuning(Blocks(nodes, k, self.setting.selects), self.setting))

    def _composing(self) -> list[Work]:
        swept = [Work("sweep", self.n)] if self.space.recipe.sweep else []
        return [Work("compose", self.n), *swept]

    def _search(self, side: str) -> list[Work]:
        """Trials, less the winner where it is a run that is made anyway."""
        if side == "composed" and self.share.value == 0:
            return []  # nothing is left to be trained
        kept = side == "baseline" or self.share.value == 1
        trials = max(0, len(self.space.recipe.learning_rates) - kept)
        return [work.times(trials / self.n) for work in self._whole(1.0)] if trials else []

    def _whole(self, share: float) -> list[Work]:
        """Steps of whole models, all configurations together: this share of what the baselines take."""
        steps, batch_size = round(share * (self.steps or 0)), self.space.recipe.finetune.batch_size
        if not steps:
            return []
        answers = self.setting.answers(steps if self.setting.kept else self.n * steps, batch_size)
        return [Work("step", self.n * steps, (batch_size,)), *answers]

    def _kept_answers(self) -> int | None:
        """Of how many training examples a teacher's answers are kept; None where they are not, or nobody knows."""
        from ..training.kept_answers import can_be_kept

        space, options = self.space, self.space.recipe.finetune
        if not options.share or options.hidden or not space.recipe.data:
            return None
        train = space.examples("train")
        return len(train) if can_be_kept(space.task, space.teacher.config, train) else None

    def _steps(self) -> int | None:
        """Steps of one baseline; None where epochs are asked of data that nobody has named."""
        r = self.space.recipe
        if r.finetune.steps is not None:
            return r.finetune.steps
        return model_settings(self.space).steps if r.data or self.space.base.name == DEMO else None


def _to_do(name: str, side: Literal["baseline", "composed"], work: list[Work]) -> Row:
    """Work of which nobody looks whether some has been done already."""
    return Row(name, side, work, work)


def _pieces(works: Iterable[Work]) -> dict[str, float]:
    """How many of each unit."""
    counts: dict[str, float] = {}
    for work in works:
        counts[work.unit] = counts.get(work.unit, 0) + work.count
    return counts


def _seconds(works: Iterable[Work], each: Mapping[Key, Seconds]) -> tuple[float, float, float]:
    """At least, about, at most: with every piece as in its quickest, its middling and its slowest try."""
    least = about = most = 0.0
    for work in summed(works):
        took = each[work.unit, work.of]
        least += (work.count if work.least is None else work.least) * took.least
        about += work.count * took.about
        most += work.count * took.most
    return least, about, most
