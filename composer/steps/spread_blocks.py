"""The block phase of a workspace: in this process, or spread over workers that share its libraries.

A worker opens the same workspace from the same recipe, once in its life, and tunes the blocks of its share with the
very code that would tune them here; the process that spreads them only looks on. Processes that a launcher such as
torchrun has started share the blocks among themselves.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WorkerError
from ..library.store import Library
from ..parallel.choice import executor_of
from ..parallel.protocol import Executor
from ..progress import SILENT, Bar, Progress
from ..recipe import Recipe
from ..tasks.task import Examples
from ..training.blocks.waves import BlockTuning, Missing, Waves, split
from ..workspace import Workspace
from .settings import wave_settings

if TYPE_CHECKING:
    from ..training.blocks.trainer import BlockSettings

POLL = 0.1
"""Seconds between two looks for blocks that others make."""
PATIENCE = 60.0
"""Seconds until a block that a worker has stored must be seen here: some shared storage is slow to tell."""


@dataclass(frozen=True)
class Place:
    """Where blocks are tuned: what every worker opens. Relative paths are relative to ``cwd``."""

    recipe: Recipe
    scheme: Path
    pruned: Path
    tuned: Path
    cwd: str = field(default_factory=os.getcwd)
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    """What a worker has opened, it keeps for one run only: files may change between two."""


@dataclass(frozen=True)
class Share:
    """What one worker does of a wave: node hash -> address."""

    place: Place
    blocks: Mapping[str, str]


def block_examples(space: Workspace) -> dict[str, Examples]:
    """The splits that the block phase sees: ``train`` and ``valid``."""
    from ..training.blocks.tuner import head

    return {"train": space.examples("train"), "valid": head(space.examples("valid"), space.recipe.block.valid_size)}


def tune(space: Workspace, scheme: Path, libraries: tuple[Library, Library], progress: Progress) -> BlockTuning:
    """Tune every block of ``scheme``, by itself, that the second library lacks, from what is pruned in the first."""
    from ..parallel.ranks import rank_and_size

    recipe, settings = space.recipe, wave_settings(space.recipe)
    if settings is None:
        return BlockTuning({})
    (rank, size), workers = rank_and_size(), recipe.jobs > 1 or recipe.cluster is not None
    if size > 1 and (rank or not workers):  # the first process may have workers of its own
        return _tune_among(space, scheme, libraries, settings, progress, rank, 1 if workers else size)
    with executor_of(recipe.jobs, recipe.cluster, device=recipe.device, progress=progress) as executor:
        if executor is None:
            done = _tune_here(space, scheme, libraries, settings, progress)
        else:
            place = Place(recipe, scheme, libraries[0].folder, libraries[1].folder)
            done = _tune_there(space, place, libraries, settings, executor, progress)
    space.forget_calibration()
    return done


def tune_share(share: Share) -> int:
    """Tune the blocks of a share, in a worker; returns the teacher's passes."""
    libraries = Library(share.place.pruned), Library(share.place.tuned)
    space = _opened(share.place)
    settings = wave_settings(space.recipe)
    assert settings is not None  # else there are no shares
    return _tune_here(space, share.place.scheme, libraries, settings, SILENT, share.blocks).teacher_passes


def _tune_here(
    space: Workspace,
    scheme: Path,
    libraries: tuple[Library, Library],
    settings: BlockSettings,
    progress: Progress,
    only: Mapping[str, str] | None = None,
) -> BlockTuning:
    from ..training.blocks import TRAINERS
    from ..training.blocks.tuner import tune_blocks

    plan = space.scheme(scheme)
    sample = space.calibration(plan, progress, by_need=only is not None)
    return tune_blocks(
        sample.model,
        space.base.layout,
        plan,
        trainer=TRAINERS.get(settings.trainer),
        settings=settings,
        task=space.task,
        **block_examples(space),
        pruned=libraries[0],
        tuned=libraries[1],
        addresses=space.addresses(libraries[0], plan),
        calibration=sample,
        progress=progress,
        only=only,
    )


def _tune_there(
    space: Workspace,
    place: Place,
    libraries: tuple[Library, Library],
    settings: BlockSettings,
    executor: Executor,
    progress: Progress,
) -> BlockTuning:
    space.forget_calibration()  # workers have their own; here the memory is not needed
    began, waves = time.perf_counter(), _waves(space, place.scheme, libraries, settings)
    done = BlockTuning(waves.addresses)

    def spread(missing: Sequence[Missing], label: str) -> None:
        shares = split(missing, space.base.layout, executor.jobs)
        with progress.bar(label, len(missing)) as bar:
            seen = _Seen(libraries[1], missing, bar)
            work = [Share(place, {one.node.hash: one.address for one in share}) for share in shares]
            done.teacher_passes += sum(executor.run(tune_share, work, seen.look))
            seen.wait()
        done.tuned += len(missing)

    try:
        waves.run(spread)
    finally:
        done.seconds = time.perf_counter() - began
    return done


def _tune_among(
    space: Workspace,
    scheme: Path,
    libraries: tuple[Library, Library],
    settings: BlockSettings,
    progress: Progress,
    rank: int,
    size: int,
) -> BlockTuning:
    """As one of a launcher's processes, of which ``size`` make blocks: tune an own part of each wave.

    Whose a block is does not depend on what is stored, as processes look at different times. They wait for each other
    by looking into the library: a wave may take longer than a barrier waits. A process that dies ends all of them.
    """
    began, waves = time.perf_counter(), _waves(space, scheme, libraries, settings)
    shares = [split([Missing(node, {}, "") for node in w], space.base.layout, size) for w in waves.scheme.waves()]
    mine = {one.node.hash for some in shares for one in (some[rank] if rank < len(some) else [])}
    done = BlockTuning(waves.addresses)

    def share(missing: Sequence[Missing], label: str) -> None:
        own = {one.node.hash: one.address for one in missing if one.node.hash in mine}
        with progress.bar(label, len(missing)) as bar:
            if own:
                made = _tune_here(space, scheme, libraries, settings, SILENT, own)
                done.teacher_passes += made.teacher_passes
            _Seen(libraries[1], missing, bar).wait(ended=False)
        done.tuned += len(missing)

    waves.run(share)
    space.forget_calibration()
    done.seconds = time.perf_counter() - began
    return done


def _waves(space: Workspace, scheme: Path, libraries: tuple[Library, Library], settings: BlockSettings) -> Waves:
    from ..training.blocks import TRAINERS

    plan = space.scheme(scheme)
    return Waves(
        plan,
        space.base.layout,
        libraries,
        space.addresses(libraries[0], plan),
        settings=settings.lineage(TRAINERS.get(settings.trainer).fields),
        data={name: examples.digest for name, examples in block_examples(space).items()},
    )


class _Seen:
    """Advances a bar as blocks appear in a library."""

    def __init__(self, library: Library, missing: Sequence[Missing], bar: Bar) -> None:
        self.library, self.bar = library, bar
        self.left = {one.address: one.node.path for one in missing}

    def look(self) -> None:
        """Count what is there now."""
        for address in [address for address in self.left if address in self.library]:
            self.bar.advance(self.left.pop(address))

    def wait(self, *, ended: bool = True) -> None:
        """Until all are there; where those who make them have ``ended``, the folder may be another one for them."""
        deadline = time.monotonic() + (PATIENCE if ended else float("inf"))
        self.look()
        while self.left and time.monotonic() < deadline:
            time.sleep(POLL)
            self.look()
        if self.left:
            raise WorkerError(
                f"{self.library.folder}: lacks {len(self.left)} blocks that workers say they have stored; is it on "
                "storage that all of them share?"
            )


_held: tuple[Place, Workspace] | None = None


def _opened(place: Place) -> Workspace:
    """The workspace of a worker, with what it has loaded."""
    global _held
    if _held is None or _held[0].run != place.run:
        try:
            os.chdir(place.cwd)
        except OSError as bad:
            raise WorkerError(
                f"{place.cwd}: a worker cannot enter it ({(bad.strerror or str(bad)).lower()}); it must be on storage "
                "that all of them share"
            ) from None
        _held = place, Workspace(place.recipe)
    return _held[1]
