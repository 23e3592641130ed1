"""What the libraries of a workspace hold of a scheme already, by the addresses that the stages themselves would use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..library.store import Library
from ..models.folder import DEMO
from ..progress import SILENT
from ..scheme.graph import Scheme
from ..workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Stock:
    """Hashes of the nodes whose blocks are stored, and targets whose scores are; None where nobody can tell.

    ``joint``: what joint tuning has stored beside the blocks that it begins from
    (:meth:`composer.steps.tune_joint.Joint.stored`).
    """

    pruned: frozenset[str] | None = frozenset()
    tuned: frozenset[str] | None = frozenset()
    scored: frozenset[str] = frozenset()
    joint: frozenset[str] = frozenset()


def stock_of(space: Workspace, plan: Scheme) -> Stock:
    """Look what is there.

    Digests of the data take part in addresses, so where something is stored the data are read. No model is loaded.
    """
    from ..pruning.addresses import variant_addresses
    from ..pruning.criteria import CRITERIA
    from ..pruning.criteria.choice import criteria_of, identity_of, looks_at_data
    from ..steps.settings import criterion_settings

    pruned, tuned = Library(space.pruned), Library(space.finetuned)
    if not any(True for library in (pruned, tuned) for _ in library.addresses()):
        return Stock()
    named = bool(space.recipe.data) or space.base.name == DEMO
    criterion = CRITERIA.get(space.recipe.criterion)()
    used = criteria_of(plan, criterion)
    if not named and looks_at_data(*used):
        return Stock(None, None)
    settings = criterion_settings(space, plan, used)
    dead_columns = space.recipe.dead_columns
    addresses = variant_addresses(plan, space.base.layout, criterion, settings, dead_columns=dead_columns)
    held = frozenset(name for name, address in addresses.items() if address in pruned)
    scored = _scored(pruned, plan, [identity_of(one, settings) for one in used if looks_at_data(one)])
    if not named:
        return Stock(held, None, scored)
    blocks = _tuned(space, plan, addresses)
    found = frozenset(name for name, address in blocks.items() if address in tuned)
    return Stock(held, found, scored, _joint(space, plan, addresses, blocks))


class _Everything(Library):
    """Claims to hold every address: a stage that makes what is missing makes nothing, and says where it would lie."""

    def __contains__(self, address: object) -> bool:
        return True

    def verify(self, address: str, *, use: bool = True) -> None:
        """Nobody looks."""


def _scored(library: Library, plan: Scheme, criteria: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Targets whose scores by these criteria are kept; where there are none, no file is looked into."""
    if not criteria:
        return frozenset()
    lineages = (library.header(address).lineage for address in library.addresses())
    scores = (x for x in lineages if x.get("stage") == "scores" and x.get("base") == plan.fingerprint)
    return frozenset(x["target"] for x in scores if x.get("criterion") in criteria)


def _tuned(space: Workspace, plan: Scheme, pruned: Mapping[str, str]) -> dict[str, str]:
    """Addresses of tuned blocks; before joint tuning those of the closed forms."""
    from torch import nn

    from ..calibration.sample import Calibration
    from ..steps.settings import wave_settings
    from ..steps.spread_blocks import block_examples
    from ..training.blocks import TRAINERS
    from ..training.blocks.tuner import tune_blocks

    settings, examples = wave_settings(space.recipe), block_examples(space)
    if settings is None:
        return {}
    nobody = nn.Linear(1, 1)
    found = tune_blocks(
        nobody,
        space.base.layout,
        plan,
        trainer=TRAINERS.get(settings.trainer),
        settings=settings,
        task=space.task,
        train=examples["train"],
        valid=examples["valid"],
        pruned=_Everything(space.pruned),
        tuned=_Everything(space.finetuned),
        addresses=pruned,
        calibration=Calibration(nobody, space.task, examples["train"], space.base.layout, size=1),
    )
    return found.addresses


def _joint(space: Workspace, plan: Scheme, pruned: Mapping[str, str], blocks: Mapping[str, str]) -> frozenset[str]:
    """What is stored of joint tuning, where the trainer is one that does it."""
    from ..steps.spread_blocks import block_examples
    from ..steps.tune_joint import Joint
    from ..training.blocks import TRAINERS

    if not TRAINERS.get(space.recipe.trainer).in_context:
        return frozenset()
    library, repaired = Library(space.finetuned), space.recipe.block.start == "repaired"
    start = (library, blocks) if repaired else (Library(space.pruned), pruned)
    return Joint(space, plan, start, library, block_examples(space)["valid"], SILENT).stored()
