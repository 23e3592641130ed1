"""What the libraries of a workspace hold of a scheme already, by the addresses that the steps themselves would use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..library.store import Library
from ..models.folder import DEMO
from ..scheme.graph import Scheme
from ..workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..steps.block_phase import BlockPhase


@dataclass(frozen=True)
class StoredBlocks:
    """Hashes of the nodes whose blocks are stored, and targets whose scores are; None where nobody can tell.

    ``joint``: what joint tuning has stored beside the blocks that it begins from
    (:meth:`composer.steps.tune_joint.Joint.stored`).
    """

    pruned: frozenset[str] | None = frozenset()
    tuned: frozenset[str] | None = frozenset()
    scored: frozenset[str] = frozenset()
    joint: frozenset[str] = frozenset()


def stored_blocks(space: Workspace, scheme: Scheme) -> StoredBlocks:
    """Look what is there.

    Digests of the data take part in addresses, so where something is stored the data are read. No model is loaded.
    """
    from ..pruning.addresses import variant_addresses
    from ..pruning.criteria import CRITERIA
    from ..pruning.criteria.choice import criteria_of, identity_of, looks_at_data
    from ..steps.block_phase import BlockPhase
    from ..steps.settings import criterion_settings

    pruned, tuned = Library(space.pruned), Library(space.finetuned)
    if not any(True for library in (pruned, tuned) for _ in library.addresses()):
        return StoredBlocks()
    named = bool(space.recipe.data) or space.base.name == DEMO
    criterion = CRITERIA.get(space.recipe.criterion)()
    used = criteria_of(scheme, criterion)
    if not named and looks_at_data(*used):
        return StoredBlocks(None, None)
    settings = criterion_settings(space, scheme, used)
    dead_columns = space.recipe.dead_columns
    addresses = variant_addresses(scheme, space.base.layout, criterion, settings, dead_columns=dead_columns)
    variants = frozenset(name for name, address in addresses.items() if address in pruned)
    scored = _scored(pruned, scheme, [identity_of(one, settings) for one in used if looks_at_data(one)])
    if not named:
        return StoredBlocks(variants, None, scored)
    phase = BlockPhase(space, scheme, pruned, tuned, addresses)
    blocks = phase.addresses
    present = frozenset(name for name, address in blocks.items() if address in tuned)
    return StoredBlocks(variants, present, scored, _joint(phase))


def _scored(library: Library, scheme: Scheme, criteria: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Targets whose scores by these criteria are kept; where there are none, no file is looked into."""
    if not criteria:
        return frozenset()
    lineages = (library.header(address).lineage for address in library.addresses())
    scores = (x for x in lineages if x.get("stage") == "scores" and x.get("base") == scheme.fingerprint)
    return frozenset(x["target"] for x in scores if x.get("criterion") in criteria)


def _joint(phase: BlockPhase) -> frozenset[str]:
    """What is stored of joint tuning, where the trainer is one that does it."""
    from ..steps.tune_joint import Joint
    from ..training.blocks import TRAINERS

    in_context = TRAINERS.get(phase.space.recipe.trainer).in_context
    return Joint(phase, phase.addresses).stored() if in_context else frozenset()
