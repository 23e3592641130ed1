"""Block-level fine-tuning as a step: every block of a scheme into a library, with its record and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..library.manifest import current_manifest, new_manifest
from ..library.store import Library
from ..progress import SILENT, Progress
from ..scheme.graph import SHARED, Scheme
from ..workspace import Given, Workspace
from .outcome import Outcome
from .settings import block_settings, joint_settings

if TYPE_CHECKING:
    from ..tasks.task import Examples

Begin = tuple[Library, Mapping[str, str]]
"""A library that blocks begin from, and their addresses in it."""


def finetune_blocks(
    recipe: Given,
    *,
    scheme: Path | None = None,
    pruned: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Outcome:
    """Tune every block of the scheme once, bottom-up, into ``modules/finetuned``; ``stats/block.csv``.

    A trainer that works in context then lets all configurations learn as one network; ``stats/joint.csv``.
    """
    from ..training.blocks import TRAINERS
    from .spread_blocks import block_examples, tune

    space = Workspace.of(recipe)
    graph, in_context = space.scheme(scheme), TRAINERS.get(space.recipe.trainer).in_context
    start, library = Library(pruned or space.pruned), Library(output or space.finetuned)
    leaves, examples = space.addresses(start, graph), block_examples(space)
    inputs = _inputs(space, graph, leaves, examples)
    table, curves = (space.folder / "stats" / name for name in ("block.csv", "joint.csv"))
    current = current_manifest(library, graph, inputs, force=force)
    if current and table.is_file() and curves.is_file() == in_context:
        return Outcome(library.folder, False, {**current["summary"], "stats": str(table)})
    with new_manifest(library, graph, inputs) as manifest:
        done = tune(space, scheme or space.conf_prune, (start, library), progress)
        addresses, joint = done.addresses, dict[str, Any]()
        if in_context:
            begin = (library, addresses) if space.recipe.block.start == "repaired" else (start, leaves)
            addresses, joint = _learnt_together(space, graph, begin, library, examples["valid"], curves, progress)
        else:
            curves.unlink(missing_ok=True)  # of another trainer
        blocks = done.addresses | ({SHARED: addresses[SHARED]} if in_context else {})
        work = {name: _seconds(library, address) for name, address in blocks.items()}
        seconds = _write_table(library, {**addresses, **done.addresses}, table)
        summary = {
            "blocks": len(done.addresses),
            "tuned": done.tuned,
            "teacher_passes": done.teacher_passes,
            "seconds": sum(work.values()) or seconds,
            **({"joint": joint} if joint else {}),
        }
        manifest |= {"addresses": addresses, "summary": summary, "device": space.device}
        manifest |= {"recipe": space.resolved(), "work": work}
        if in_context:  # named, so that nobody tidies them away: what is added later starts from them
            manifest["start"] = done.addresses
    return Outcome(library.folder, True, {**summary, "stats": str(table)})


def _inputs(
    space: Workspace, plan: Scheme, leaves: Mapping[str, str], examples: Mapping[str, Examples]
) -> dict[str, Any]:
    """What decides whether a library is current."""
    from ..training.blocks import TRAINERS

    trainer = TRAINERS.get(space.recipe.trainer)
    settings = block_settings(space.recipe).lineage(trainer.fields)
    data = {name: split.digest for name, split in examples.items()}
    inputs: dict[str, Any] = {"scheme": plan.digest, "pruned": dict(leaves), "settings": settings, "data": data}
    if not trainer.in_context:
        return inputs
    from ..training.settings import told_of

    learnt = told_of(joint_settings(space))  # what is not said of blocks is as for one whole model
    unlearnt = {name: value for name, value in settings.items() if name not in learnt}
    return inputs | {"settings": unlearnt, "finetune": learnt}


def _learnt_together(
    space: Workspace,
    plan: Scheme,
    begin: Begin,
    library: Library,
    valid: Examples,
    curves: Path,
    progress: Progress,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Let all configurations learn as one network; addresses of its blocks, and what was done."""
    from ..files.stats import JOINT_COLUMNS, joint_rows, write_csv
    from .tune_joint import Joint

    found, joint = Joint(space, plan, begin, library, valid, progress).run()
    write_csv(curves, joint_rows(library.stats(found[SHARED]), plan.roots), JOINT_COLUMNS)
    return found, joint


def _seconds(library: Library, address: str) -> float:
    """The seconds that a stored block took."""
    return float(library.stats(address).get("seconds", 0.0))


def _write_table(library: Library, addresses: dict[str, str], path: Path) -> float:
    """Collect the history of these blocks into one CSV; returns the seconds that they took in all."""
    from ..files.stats import BLOCK_COLUMNS, write_csv

    kept = [library.stats(address) for address in dict.fromkeys(addresses.values())]
    write_csv(path, [row for stats in kept for row in stats.get("rows", [])], BLOCK_COLUMNS)
    return float(sum(stats.get("seconds", 0.0) for stats in kept))
