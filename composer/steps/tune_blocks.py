"""`compose finetune --level block`: every block of a scheme into a library, with its manifest and its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RecipeError
from ..library.manifest import current_manifest, new_manifest
from ..library.store import Library
from ..progress import SILENT, Progress
from ..scheme.graph import SHARED
from ..workspace import Given, Workspace
from .outcome import Outcome
from .settings import block_settings, joint_rates, joint_settings, wave_settings

if TYPE_CHECKING:
    from .block_phase import BlockPhase


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
    from .block_phase import BlockPhase
    from .spread_blocks import tune

    space = Workspace.of(recipe)
    graph, in_context = space.scheme(scheme), TRAINERS.get(space.recipe.trainer).in_context
    if space.recipe.finetune.own != "none" and not in_context:
        raise RecipeError(
            f"--own: got {space.recipe.finetune.own!r} with --trainer {space.recipe.trainer}; allowed: joint"
        )
    start, library = Library(pruned or space.pruned), Library(output or space.finetuned)
    phase = BlockPhase(space, graph, start, library, space.addresses(start, graph))
    inputs = _inputs(phase)
    table, curves = (space.folder / "stats" / name for name in ("block.csv", "joint.csv"))
    current = current_manifest(library, graph, inputs, force=force)
    if current and table.is_file() and curves.is_file() == in_context:
        return Outcome(library.folder, False, {**current["summary"], "stats": str(table)})
    _say_what_metric(space, progress)
    with new_manifest(library, graph, inputs) as manifest:
        done = tune(phase, scheme or space.conf_prune, progress)
        addresses, joint = done.addresses, dict[str, Any]()
        if in_context:
            addresses, joint = _learn_together(phase, done.addresses, curves, progress)
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


def _say_what_metric(space: Workspace, progress: Progress) -> None:
    """Where moments are to know the loss and blocks look at none, say so: it is no error, as masks may know it."""
    from ..training.blocks import TRAINERS

    waves = wave_settings(space.recipe)
    if space.recipe.metric != "plain" and not (waves and "calibration_size" in TRAINERS.get(waves.trainer).fields):
        progress.note(
            f"--metric {space.recipe.metric}: --trainer {space.recipe.trainer} looks at no moments here, so it shapes "
            "masks and sweeps alone"
        )


def _inputs(phase: BlockPhase) -> dict[str, Any]:
    """What decides whether a library is current."""
    from ..training.blocks import TRAINERS
    from ..training.settings import identity_of

    recipe = phase.space.recipe
    trainer = TRAINERS.get(recipe.trainer)
    settings = block_settings(recipe).lineage(trainer.fields)
    inputs: dict[str, Any] = {
        "scheme": phase.scheme.digest,
        "pruned": dict(phase.starts),
        "settings": settings,
        "data": {name: split.digest for name, split in phase.examples.items()},
    }
    if not trainer.in_context:
        return inputs
    # What is not said of blocks is as for one whole model; so what a recipe says of both is named once, as that.
    whole = identity_of(joint_settings(phase.space))
    rates = joint_rates(recipe)
    return inputs | {
        "settings": {name: value for name, value in settings.items() if name not in whole},
        "finetune": whole,
        **({"learning_rates": rates} if rates else {}),
    }


def _learn_together(
    phase: BlockPhase, blocks: Mapping[str, str], curves: Path, progress: Progress
) -> tuple[dict[str, str], dict[str, Any]]:
    """Let all configurations learn as one network; addresses of its blocks, and what was done."""
    from ..files.stats import JOINT_COLUMNS, joint_rows, write_csv
    from .tune_joint import Joint

    addresses, done = Joint(phase, blocks, progress).run()
    write_csv(curves, joint_rows(phase.tuned.stats(addresses[SHARED]), phase.scheme.roots), JOINT_COLUMNS)
    return addresses, done


def _seconds(library: Library, address: str) -> float:
    """The seconds that a stored block took."""
    return float(library.stats(address).get("seconds", 0.0))


def _write_table(library: Library, addresses: dict[str, str], path: Path) -> float:
    """Collect the history of these blocks into one CSV; returns the seconds that they took in all."""
    from ..files.stats import BLOCK_COLUMNS, write_csv

    kept = [library.stats(address) for address in dict.fromkeys(addresses.values())]
    write_csv(path, [row for stats in kept for row in stats.get("rows", [])], BLOCK_COLUMNS)
    return float(sum(stats.get("seconds", 0.0) for stats in kept))
