"""What a run of a recipe will take: blocks, disk, memory, steps; with a few timed batches, seconds and a verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..models.folder import DEMO
from ..progress import SILENT, Progress
from ..pruning.criteria import CRITERIA
from ..pruning.criteria.choice import criteria_of, looks_at_data
from ..recipe import as_for_one_model
from ..scheme.graph import Node
from ..training.blocks import TRAINERS
from ..workspace import Given, Workspace
from .block_workload import memory_of_blocks, shared_files, tuning
from .footprint import LEARNING, Footprint, levels_of
from .planned_scheme import planned_scheme
from .stored import stored_blocks
from .verdict import Costs, Share, verdict_of
from .workload import Blocks, Key, Setting, Work, pruning, summed

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
    if space.recipe.trainer not in TRAINERS.names():
        TRAINERS.get(space.recipe.trainer)  # says what is allowed
    plan = Plan(space, share, read=time)
    told = plan.told()
    return {**told, **plan.timed(progress)} if time else told


class Plan:
    """The forecast of one workspace; ``share`` is what the user says of it; ``read``: the data are needed anyway."""

    def __init__(self, space: Workspace, share: float | None, *, read: bool) -> None:
        self.space = space
        scheme, layout, r = planned_scheme(space), space.base.layout, space.recipe
        needs = looks_at_data(*criteria_of(scheme, CRITERIA.get(r.criterion)()))
        valid = min(r.block.valid_size, r.valid_size or r.block.valid_size)
        valid = min(valid, len(space.examples("valid"))) if read else valid
        self.steps = self._steps()
        if r.trainer == "joint":
            r = r.model_copy(update={"block": as_for_one_model(r.block, r.finetune, self.steps)})
        together = r.block.steps if r.trainer == "joint" else 0
        comparison = space.folder / "results" / "comparison.json"
        self.share = Share.of(share, comparison, learnt=self.steps is not None and together >= self.steps)
        self.setting = Setting(scheme, layout, r, Footprint(space.base, scheme), needs, valid)
        self.stored = stored_blocks(space, scheme)
        self.n = len(scheme.roots)

    def told(self) -> dict[str, Any]:
        """All but seconds."""
        rows = self._blocks()
        return {
            "folder": str(self.space.folder),
            "configurations": self.n,
            "criterion": self.space.recipe.criterion,
            "trainer": self.space.recipe.trainer,
            "blocks": rows,
            "disk": self._disk(rows),
            "memory": self._memory(),
            "steps": self.steps,
            "share": {"value": self.share.value, "from": self.share.source},
            "work": [
                {"work": name, "side": side, "pieces": _pieces(all_of_it), "to_do": _pieces(left), "seconds": None}
                for name, side, all_of_it, left in self._work()
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
        each = measure(Pieces(self.space, self.setting), [w for *_, some, _ in work for w in some], progress)
        rows = []
        totals = {"baseline": 0.0, "composed": 0.0}
        for name, side, all_of_it, left in work:
            seconds = _seconds(all_of_it, each)
            for one in totals:
                totals[one] += seconds[1] if side in (one, "both") else 0.0
            pieces = {"pieces": _pieces(all_of_it), "to_do": _pieces(left)}
            rows.append(
                {"work": name, "side": side, **pieces, "seconds": seconds, "seconds_to_do": _seconds(left, each)}
            )
        search = {side: _seconds(self._search(side), each)[1] for side in totals}
        costs = Costs(
            [_seconds(self._tuning(k), each)[1] for k in range(1, self.n + 1)],
            _seconds(self._whole(1.0), each)[1] / self.n,
            _seconds(self._composing(), each)[1] / self.n,
            search["composed"] - search["baseline"],
        )
        return {
            "work": rows,
            "seconds": totals,
            "each": [
                {"unit": unit, "of": list(of), "seconds": took.about, "range": [took.least, took.most]}
                for (unit, of), took in each.items()
            ],
            "device": self.space.device,
            "verdict": verdict_of(costs, self.share, totals),
        }

    # The work, in the words of a comparison's ledger -------------------------------------------------------

    def _work(self) -> list[tuple[str, str, list[Work], list[Work]]]:
        """What, on which side, all of it, and what of it is to do."""
        leaves, left = (_missing(*some) for some in self._nodes())
        pruning_left = list(pruning(leaves, self.setting, self.stored.scored))
        gathered = any(work.unit == "gather" for work in pruning_left)
        tuning_left = list(tuning(Blocks(left, self.n, gathered, self.stored.joint), self.setting))
        rows = [
            ("prune every variant", "both", list(pruning(self.setting.pruned_nodes(), self.setting)), pruning_left),
            ("block-level fine-tuning, once for all", "composed", self._tuning(self.n), tuning_left),
        ]
        more = [
            ("compose the models", "composed", self._composing()),
            ("learning-rate search", "baseline", self._search("baseline")),
            ("learning-rate search", "composed", self._search("composed")),
            ("fine-tune every configuration whole", "baseline", self._whole(1.0)),
            (
                "fine-tune composed models until they reach the baseline's loss",
                "composed",
                self._whole(self.share.value),
            ),
        ]
        return rows + [(name, side, work, work) for name, side, work in more if work]

    def _nodes(self) -> list[tuple[list[Node], frozenset[str] | None]]:
        """What the two libraries need, and hold."""
        pruned = self.setting.pruned_nodes(), self.stored.pruned
        return [pruned, (self.setting.tuned_nodes(), self.stored.tuned)]

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
        kept = side == "baseline" or self.share.value == 1
        trials = max(0, len(self.space.recipe.learning_rates) - kept)
        return [work.times(trials / self.n) for work in self._whole(1.0)] if trials else []

    def _whole(self, share: float) -> list[Work]:
        steps = round(share * (self.steps or 0))
        return [Work("step", self.n * steps, (self.space.recipe.finetune.batch_size,))] if steps else []

    def _steps(self) -> int | None:
        """Steps of one baseline; None where epochs are asked of data that nobody has named."""
        from ..steps.settings import model_settings

        r = self.space.recipe
        if r.finetune.steps is not None:
            return r.finetune.steps
        return model_settings(self.space).steps if r.data or self.space.base.name == DEMO else None

    # Bytes -------------------------------------------------------------------------------------------------

    def _blocks(self) -> list[dict[str, Any]]:
        """A row for each library and level."""
        sharing = {row.level: row for row in self.setting.scheme.sharing(self.setting.layout)}
        sizes = self.setting.sizes
        parts = zip(("pruned", "finetuned"), self._nodes(), (sizes.pruned, sizes.tuned), strict=True)
        rows = []
        for library, (nodes, held), size in parts:
            for level, some in levels_of(nodes).items():
                left = _missing(some, held)
                rows.append(
                    {
                        "library": library,
                        "level": level,
                        "needed": len(some),
                        "uses": sharing[level].uses,
                        "units": sharing[level].work,
                        "saved": sharing[level].saved,
                        "stored": None if held is None else len(some) - len(left),
                        "to_do": len(left),
                        "bytes": sum(map(size, left)),
                    }
                )
        return rows

    def _disk(self, rows: Iterable[dict[str, Any]]) -> dict[str, int]:
        """Bytes that will be written: blocks, scores that a criterion keeps, what joint tuning shares, models."""
        setting, sizes, space = self.setting, self.setting.sizes, self.space
        new = [path for path in setting.scheme.modules if path in setting.keeping and path not in self.stored.scored]
        joint = space.recipe.trainer == "joint"
        names = [name.format(i) for i in range(self.n) for name in ("{}", "{}-finetuned", "{}-baseline")]
        models = [name for name in (*names, "dense") if not (space.folder / "models" / name).exists()]
        parts = {
            "blocks": sum(row["bytes"] for row in rows),
            "scores": sum(map(sizes.scores, new)),
            "shared": sum(shared_files(Blocks([], self.n, False, self.stored.joint), setting)) if joint else 0,
            "models": len(models) * sizes.model,
        }
        return {**parts, "total": sum(parts.values())}

    def _memory(self) -> dict[str, int]:
        """Peaks of the phases: weights, moments, optimiser states; not what a batch takes on its way."""
        setting, sizes = self.setting, self.setting.sizes
        moments = min(sizes.moments, setting.recipe.memory or sizes.moments)
        leaves, left = (_missing(*some) for some in self._nodes())
        selecting = moments + sizes.scratch(setting.scheme.modules) if setting.selects and leaves else 0
        parts = {
            "model": sizes.model,
            "prune": sizes.model + selecting,
            "blocks": sizes.model + memory_of_blocks(Blocks(left, self.n, setting.selects), setting),
            "finetune": (LEARNING + 1) * sizes.model,
        }
        return {**parts, "peak": max(parts.values())}


def _missing(nodes: Sequence[Node], held: frozenset[str] | None) -> list[Node]:
    return [node for node in nodes if node.hash not in (held or ())]


def _pieces(works: Iterable[Work]) -> dict[str, float]:
    """How many of each unit."""
    found: dict[str, float] = {}
    for work in works:
        found[work.unit] = found.get(work.unit, 0) + work.count
    return found


def _seconds(works: Iterable[Work], each: Mapping[Key, Seconds]) -> tuple[float, float, float]:
    """At least, about, at most: with every piece as in its quickest, its middling and its slowest try."""
    least = about = most = 0.0
    for work in summed(works):
        took = each[work.unit, work.of]
        least += (work.count if work.least is None else work.least) * took.least
        about += work.count * took.about
        most += work.count * took.most
    return least, about, most
