"""The block phase, wherever its blocks are made: in this process, in workers, or among a launcher's processes.

Blocks of one wave do not depend on each other, and a block's bytes depend on its address alone; so a wave can be cut
into shares at will. Nothing but recipes, paths and addresses goes to a worker, and nothing but counts comes back: all
weights go through the library, where a share that is run twice (its worker died) finds what it has stored already.

- A worker opens the same workspace from the same recipe, once in its life, and tunes the blocks of its share with
  the very code that would tune them here. The process that spreads them only looks on.
- Processes that a launcher such as torchrun has started are there anyway: they share each wave among themselves.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..errors import WorkerError
from ..library.store import Library
from ..parallel.choice import executor_of
from ..parallel.protocol import Executor
from ..progress import Bar, Progress
from ..recipe import Recipe
from ..training.blocks.waves import BlockTuning, Make, Missing, split
from ..workspace import Workspace
from .block_phase import BlockPhase

POLL = 0.1
"""Seconds between two looks for blocks that others make."""
PATIENCE = 180.0
"""Seconds until a block that a worker has stored must be seen here: shared storage may be slow to tell.

NFS by itself remembers for up to 60 seconds what was in a folder (``acdirmax`` in nfs(5)); a busy server adds to that.
"""


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


def tune(phase: BlockPhase, scheme: Path, progress: Progress) -> BlockTuning:
    """Tune every block that the phase's library lacks, where the recipe says.

    Args:
        scheme: the file of the phase's scheme, which workers read.
    """
    from ..parallel.ranks import rank_and_size

    recipe, (rank, size) = phase.space.recipe, rank_and_size()
    workers = recipe.jobs > 1 or recipe.cluster is not None
    if size > 1 and (rank or not workers):
        # Where the first process of a launcher has workers, these make all blocks, and the other processes none.
        done = phase.run(_among(phase, rank, 1 if workers else size, progress))
    else:
        with executor_of(recipe.jobs, recipe.cluster, device=recipe.device, progress=progress) as executor:
            if executor is None:
                _ = phase.space.device  # one that is not there is refused now, before anything is stored
                done = phase.run(partial(phase.make, progress=progress, by_need=False))
            else:
                place = Place(recipe, scheme, phase.pruned.folder, phase.tuned.folder)
                done = phase.run(_in_workers(phase, place, executor, progress))
    phase.forget()
    return done


def tune_share(share: Share) -> int:
    """Tune the blocks of a share, in a worker; returns how often the base model was run."""
    phase = _opened(share.place)
    return phase.run(phase.make, share.blocks).teacher_passes


def _in_workers(phase: BlockPhase, place: Place, executor: Executor, progress: Progress) -> Make:
    """Makes blocks in workers that open ``place``, as many at once as ``executor`` has."""
    phase.forget()  # workers have a base model of their own; here its memory is not needed

    def make(missing: Sequence[Missing], label: str) -> int:
        shares = split(missing, phase.layout, executor.jobs)
        with progress.bar(label, len(missing)) as bar:
            seen = _Seen(phase.tuned, missing, bar)
            work = [Share(place, {block.node.hash: block.address for block in share}) for share in shares]
            passes = sum(executor.run(tune_share, work, seen.look))
            seen.wait()
        return passes

    return make


def _among(phase: BlockPhase, rank: int, size: int, progress: Progress) -> Make:
    """Makes an own part of each wave, as one of a launcher's processes, of which ``size`` make blocks.

    Processes look into the library at different times and find different blocks missing. So each wave is shared out as
    if nothing of it were stored: then all agree whose a block is, without a word. They wait for each other by looking
    into the library, as a wave may take longer than a barrier waits; the launcher ends all of them when one dies.
    """
    mine: set[str] = set()
    for wave in phase.scheme.waves():
        shares = split([Missing(node, {}, "") for node in wave], phase.layout, size)
        if rank < len(shares):  # a small wave has fewer shares than there are processes
            mine.update(block.node.hash for block in shares[rank])

    def make(missing: Sequence[Missing], label: str) -> int:
        own = [block for block in missing if block.node.hash in mine]
        with progress.bar(label, len(missing)) as bar:
            passes = phase.make(own, label) if own else 0
            _Seen(phase.tuned, missing, bar).wait(ended=False)
        return passes

    return make


class _Seen:
    """Advances a bar as blocks appear in a library."""

    def __init__(self, library: Library, missing: Sequence[Missing], bar: Bar) -> None:
        self.library, self.bar = library, bar
        self.left = {block.address: block.node.path for block in missing}

    def look(self) -> None:
        """Count what is there now."""
        for address in [address for address in self.left if address in self.library]:
            self.bar.advance(self.left.pop(address))

    def wait(self, *, ended: bool = True) -> None:
        """Wait until all are there.

        Args:
            ended: those who make them have finished. What they have stored must then appear soon; where it does not,
                the folder is another one for them, and ``WorkerError`` says so.
        """
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


_of_this_run: tuple[str, BlockPhase] | None = None
"""What this process has opened as a worker, and for which run: model and data are read for its first share only."""


def _opened(place: Place) -> BlockPhase:
    """The block phase at ``place``, opened by the first share of a run."""
    global _of_this_run
    if _of_this_run is None or _of_this_run[0] != place.run:
        try:
            os.chdir(place.cwd)
        except OSError as bad:
            raise WorkerError(
                f"{place.cwd}: a worker cannot enter it ({(bad.strerror or str(bad)).lower()}); it must be on storage "
                "that all of them share"
            ) from None
        space, pruned = Workspace(place.recipe), Library(place.pruned)
        scheme = space.scheme(place.scheme)
        starts = space.addresses(pruned, scheme)
        _of_this_run = place.run, BlockPhase(space, scheme, pruned, Library(place.tuned), starts)
    return _of_this_run[1]
