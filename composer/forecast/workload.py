"""How much work a scheme is, in pieces of equal size: counts, from the scheme and the recipe alone.

What a piece costs is measured in :mod:`.timing`, under the same names of units. Of their own work block trainers say
how much it is; :mod:`.block_workload` asks them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from ..pruning.criteria import CRITERIA
from ..pruning.criteria.choice import criterion_of, looks_at_data
from ..pruning.criteria.criterion import SAMPLED, moves_weights
from ..recipe import BlockOptions, Recipe, as_for_one_model
from ..scheme.graph import Node, Scheme
from ..scheme.layout import Layout
from ..steps.settings import wave_settings
from ..training.work import Work, parts
from .footprint import Footprint

if TYPE_CHECKING:
    from ..training.blocks.trainer import BlockSettings

Key = tuple[str, tuple[str | int, ...]]
"""Unit and kind of a piece of work."""


@dataclass(frozen=True)
class Setting:
    """What the counts depend on."""

    scheme: Scheme
    layout: Layout
    recipe: Recipe
    sizes: Footprint
    needs: frozenset[str]
    """What criteria look at."""
    valid: int
    """Validation examples that blocks are measured on."""
    steps: int | None = None
    """Steps of one whole model; None where they cannot be counted yet."""
    kept: int | None = None
    """Training examples whose teacher's answers are kept; None where none are."""

    def answers(self, steps: float, batch_size: int) -> Iterator[Work]:
        """The teacher's passes in so many steps over the same examples; for each example one, where they are kept."""
        options = self.recipe.finetune
        if options.share or options.hidden:
            most = steps if self.kept is None else min(steps, -(-self.kept // batch_size))
            yield Work("answer", most, (batch_size,))

    @property
    def selects(self) -> bool:
        """Whether a criterion looks at the calibration sample."""
        return bool(self.needs & SAMPLED)

    @cached_property
    def waves(self) -> BlockSettings | None:
        """Settings of the blocks that are tuned one by one; None where none is."""
        return wave_settings(self.recipe)

    @cached_property
    def together(self) -> BlockOptions:
        """Options of learning in context, where the recipe's trainer does."""
        return as_for_one_model(self.recipe.block, self.recipe.finetune, self.steps)

    @cached_property
    def keeping(self) -> frozenset[str]:
        """Targets whose scores are stored: their criterion looks at data, and has scores as it moves no weights."""
        default = CRITERIA.get(self.recipe.criterion)()
        criteria = ((node.path, criterion_of(node, node.path, default)) for node in self.scheme.at("module"))
        return frozenset(path for path, one in criteria if looks_at_data(one) and not moves_weights(one))

    @property
    def passes(self) -> int:
        """Passes that gather the base model's moments once."""
        return parts([self.sizes.moments], self.recipe.memory)

    def pruned_nodes(self) -> list[Node]:
        """What is stored when variants are pruned."""
        return self.scheme.pruned_nodes(self.layout, dead_columns=self.recipe.dead_columns)

    def tuned_nodes(self) -> list[Node]:
        """The blocks that are tuned one by one."""
        return [node for wave in self.scheme.waves() for node in wave] if self.waves else []

    def like(self, node: Node) -> str:
        """The node that stands for all of the same level and sizes: one of middling rates."""
        kin = self._kin[self._size(node)]
        return kin[len(kin) // 2]

    def target_like(self, path: str) -> str:
        """The target that stands for all of the same sizes."""
        return self._target_kin[self._target_size(path)]

    @cached_property
    def _kin(self) -> dict[tuple[object, ...], list[str]]:
        kin: dict[tuple[object, ...], list[str]] = {}
        inner = [node for node in self.scheme.nodes.values() if node.path]
        for node in sorted(inner, key=lambda n: sum(n.rates.values()) / len(n.rates)):
            kin.setdefault(self._size(node), []).append(node.hash)
        return kin

    @cached_property
    def _target_kin(self) -> dict[tuple[object, ...], str]:
        return {self._target_size(path): path for path in self.scheme.modules}

    def _size(self, node: Node) -> tuple[object, ...]:
        return node.level, *map(self._target_size, node.block(self.layout).targets)

    def _target_size(self, path: str) -> tuple[object, ...]:
        target = self.layout.target(path)
        sizes = ((p.out_features, p.in_features, p.bias, p.stream) for p in target.projections)
        return target.kind, target.heads, *sizes


@dataclass(frozen=True)
class Blocks:
    """The blocks to tune for so many configurations.

    ``gathered``: the moments are there from pruning; ``joint``: names of what joint tuning has stored already.
    """

    nodes: Sequence[Node]
    configurations: int
    gathered: bool
    joint: frozenset[str] = frozenset()


def pruning(nodes: Sequence[Node], setting: Setting, scored: Collection[str] = ()) -> Iterator[Work]:
    """Prune these variants; targets in ``scored`` have stored scores."""
    paths = dict.fromkeys(list(node.rates)[-1] for node in nodes)
    new = [path for path in paths if path not in scored]
    if setting.selects and new:
        yield Work("gather", setting.passes)
    if "movement" in setting.needs and new:
        run = setting.recipe.movement
        yield Work("step", run.steps, (run.batch_size,))
        yield from replace(setting, kept=None).answers(run.steps, run.batch_size)
    for path in new:
        target = setting.layout.target(path)
        read = setting.layout.out_projection(path) if target.kind == "attention" else target.projections[0]
        effort = read.in_features**2 * (read.in_features + 70 * read.out_features * (target.kind == "linear"))
        yield Work("select", 1, (setting.target_like(path),), effort)
    files = [setting.sizes.pruned(node) for node in nodes]
    yield from files_of(files + [setting.sizes.scores(path) for path in new if path in setting.keeping])


def files_of(sizes: Sequence[int]) -> Iterator[Work]:
    """Write files of these sizes and read them again."""
    if sizes:
        yield Work("file", len(sizes))
        yield Work("byte", sum(sizes))


def summed(works: Iterable[Work]) -> list[Work]:
    """Pieces of the same kind taken together."""
    order = sorted(works, key=lambda work: (work.unit, work.operations, str(work.of)))
    return [_sum(list(same)) for _, same in groupby(order, lambda work: (work.unit, work.operations, work.of))]


def _sum(works: Sequence[Work]) -> Work:
    counts = sum(work.count for work in works)
    return replace(works[0], count=counts, least=sum(w.count if w.least is None else w.least for w in works))
