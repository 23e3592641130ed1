"""What the records of a run say about its work: the figures that the ledger of a comparison adds up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..composing.assemble import serves_all
from ..files.stats import joint_rows
from ..library.store import Library
from ..report.growth import JointPhase, JointPoint, Work
from ..report.records import Masks, Row, Search, Trial
from ..scheme.graph import SHARED, Scheme
from ..training.blocks import TRAINERS
from ..workspace import Workspace


def work_of(space: Workspace, rows: Sequence[Row], search: Search) -> Work:
    """Pruning and the block phase from the libraries' records, the rest from the table."""
    scheme, library = space.scheme(), Library(space.finetuned)
    pruned = Library(space.pruned).manifest(scheme.digest) or {}
    tuned = library.manifest(scheme.digest) or {}
    addresses = tuned.get("addresses", {})
    return Work(
        prune=pruned.get("seconds", 0.0),
        blocks=_block_seconds(scheme, tuned.get("work", {})),
        rows=rows,
        search=search,
        joint=_joint(library.stats(addresses[SHARED]), scheme.roots) if SHARED in addresses else None,
        variants=len(scheme.at("module")),
        blocks_made=tuned.get("summary", {}).get("blocks"),
        block_steps=_block_steps(library, tuned),
        masks=Masks(
            criterion=pruned.get("inputs", {}).get("criterion", {}).get("name"),
            same=tuned.get("inputs", {}).get("pruned") == pruned.get("addresses", {}),
        ),
    )


def tried_together(space: Workspace) -> tuple[Trial, ...]:
    """The learning rates that joint tuning tried."""
    tuned = Library(space.finetuned).manifest(space.scheme().digest) or {}
    joint = tuned.get("summary", {}).get("joint", {})
    return tuple(Trial(**one) for one in joint.get("tried", []))


def _block_seconds(scheme: Scheme, seconds: Mapping[str, float]) -> list[dict[str, float]]:
    """For each configuration the seconds of its nodes, and of the joint phase, which belongs to all."""
    names = [[*(node.hash for node in scheme.below(scheme.root(i))), SHARED] for i in range(len(scheme.roots))]
    return [{name: seconds.get(name, 0.0) for name in some} for some in names]


def _joint(stats: dict[str, Any], roots: Sequence[str]) -> JointPhase:
    """What the joint phase took, and every configuration's loss as it went."""
    losses = {(row["step"], row["configuration"]): row["valid_loss"] for row in joint_rows(stats, roots)}
    curve = [
        JointPoint(row["train_seconds"], row["valid_loss"], [_taken(losses, row["step"], i) for i in range(len(roots))])
        for row in stats["mean"]
    ]
    learnt = len({row["configuration"] for row in stats["joint"]})
    return JointPhase(stats["seconds"], stats["steps"], learnt, curve)


def _taken(losses: Mapping[tuple[int, int], float | None], step: int, i: int) -> float | None:
    """What configuration ``i`` would be kept at: its loss at this step or, if that was lower, at the start."""
    here, start = losses.get((step, i)), losses.get((0, i))
    return here if here is None or start is None else min(here, start)


def _block_steps(library: Library, tuned: dict[str, Any]) -> int | None:
    """Steps of all blocks together, each counted for itself; None for a trainer that takes none."""
    trainer = tuned.get("inputs", {}).get("settings", {}).get("trainer")
    if trainer not in TRAINERS.names() or not TRAINERS.get(trainer).takes_steps:
        return None
    # Each once: a configuration that stays as it began names blocks of its own, whose steps the others' tell too.
    addresses = {address for name, address in tuned["addresses"].items() if serves_all(name)}
    rows = [library.stats(address).get("rows") for address in sorted(addresses)]
    return sum(some[-1]["step"] for some in rows if some)
