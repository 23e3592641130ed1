"""What a run takes in bytes: blocks of each library and level, all that is written, peaks of the memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..scheme.graph import Node
from ..training.blocks import TRAINERS
from ..training.work import LEARNING
from .block_workload import memory_of_blocks, shared_files
from .footprint import levels_of
from .stored import StoredBlocks
from .workload import Blocks, Setting


def missing(nodes: Sequence[Node], stored: frozenset[str] | None) -> list[Node]:
    """Those that are not stored; all of them where nobody can tell."""
    return [node for node in nodes if node.hash not in (stored or ())]


def block_rows(setting: Setting, stored: StoredBlocks) -> list[dict[str, Any]]:
    """A row for each library and level: blocks that are needed, stored, to be made, and their bytes."""
    sharing = {row.level: row for row in setting.scheme.sharing(setting.layout)}
    rows = []
    for library, nodes, there, size in (
        ("pruned", setting.pruned_nodes(), stored.pruned, setting.sizes.pruned),
        ("finetuned", setting.tuned_nodes(), stored.tuned, setting.sizes.tuned),
    ):
        for level, needed in levels_of(nodes).items():
            left = missing(needed, there)
            rows.append(
                {
                    "library": library,
                    "level": level,
                    "needed": len(needed),
                    "uses": sharing[level].uses,
                    "units": sharing[level].work,
                    "saved": sharing[level].saved,
                    "stored": None if there is None else len(needed) - len(left),
                    "to_do": len(left),
                    "bytes": sum(map(size, left)),
                }
            )
    return rows


def disk(setting: Setting, stored: StoredBlocks, rows: Iterable[dict[str, Any]], models: Path) -> dict[str, int]:
    """Bytes that will be written: blocks, scores that a criterion keeps, what joint tuning shares, models.

    Args:
        rows: of :func:`block_rows`.
        models: the folder of models; those that are there are not written again.
    """
    sizes, n = setting.sizes, len(setting.scheme.roots)
    new = [path for path in setting.scheme.modules if path in setting.keeping and path not in stored.scored]
    names = [name.format(i) for i in range(n) for name in ("{}", "{}-finetuned", "{}-baseline")]
    joint = TRAINERS.get(setting.recipe.trainer).in_context
    parts = {
        "blocks": sum(row["bytes"] for row in rows),
        "scores": sum(map(sizes.scores, new)),
        "shared": sum(shared_files(Blocks([], n, False, stored.joint), setting)) if joint else 0,
        "models": sizes.model * sum(not (models / name).exists() for name in (*names, "dense")),
    }
    return {**parts, "total": sum(parts.values())}


def memory(setting: Setting, stored: StoredBlocks) -> dict[str, int]:
    """Peaks of the phases: weights, moments, optimiser states; not what a batch takes on its way."""
    sizes = setting.sizes
    leaves, blocks = missing(setting.pruned_nodes(), stored.pruned), missing(setting.tuned_nodes(), stored.tuned)
    moments = min(sizes.moments, setting.recipe.memory or sizes.moments)
    selecting = moments + sizes.scratch(setting.scheme.modules) if setting.selects and leaves else 0
    tuning = memory_of_blocks(Blocks(blocks, len(setting.scheme.roots), setting.selects), setting)
    parts = {
        "model": sizes.model,
        "prune": sizes.model + selecting,
        "blocks": sizes.model + tuning,
        "finetune": (LEARNING + 1) * sizes.model,
    }
    return {**parts, "peak": max(parts.values())}
