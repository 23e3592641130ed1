"""The block phase of one scheme: what every way of running it needs, built once and handed down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..library.store import Library
from ..progress import SILENT, Progress
from ..scheme.graph import Scheme
from ..tasks.task import Examples
from ..training.blocks.waves import BlockTuning, Make, Missing, Waves, run_waves
from ..workspace import Workspace
from .settings import wave_settings

if TYPE_CHECKING:
    from ..training.blocks.tuner import BlockTuner

# Nothing here or in spread_blocks loads torch when it is imported: a worker imports both to learn what its work is,
# before it is told how many threads torch may use.


class BlockPhase:
    """Every block of a scheme, by itself, from a library of pruned variants into one of tuned blocks.

    :meth:`run` walks the waves and leaves what they lack to somebody: to :meth:`make`, which tunes in this process, or
    to one of the ways of :mod:`composer.steps.spread_blocks`. All of them come to the same bytes.

    Attributes:
        starts: node hash -> address in ``pruned``.
        examples: the splits that blocks are tuned and measured on, ``train`` and ``valid``.
        settings: None where blocks are not tuned one by one: all of them begin to learn in context as they were pruned.
        waves: which blocks ``tuned`` lacks; None as ``settings``.
    """

    def __init__(
        self, space: Workspace, scheme: Scheme, pruned: Library, tuned: Library, starts: Mapping[str, str]
    ) -> None:
        self.space, self.scheme, self.layout = space, scheme, space.base.layout
        self.pruned, self.tuned, self.starts = pruned, tuned, starts
        self.examples = _examples(space)
        self.settings = wave_settings(space.recipe)
        self.waves = self._waves()
        self._tuner: BlockTuner | None = None

    @property
    def addresses(self) -> Mapping[str, str]:
        """Node hash -> address of every block that the waves tune, stored or not; empty where there are none."""
        return self.waves.addresses if self.waves else {}

    def run(self, make: Make, only: Mapping[str, str] | None = None) -> BlockTuning:
        """Let ``make`` tune what each wave lacks.

        Args:
            only: node hash -> address of the blocks to tune, where others tune the rest.
        """
        return run_waves(self.waves, make, only) if self.waves else BlockTuning({})

    def make(self, missing: Sequence[Missing], label: str, *, progress: Progress = SILENT, by_need: bool = True) -> int:
        """Tune these blocks in this process; returns how often the base model was run.

        It is loaded with the first block that is missing, and kept until :meth:`forget`.

        Args:
            by_need: gather those moments of the calibration sample that these blocks ask for; otherwise those of all
                targets in one pass, which is less work where all blocks are tuned here.
        """
        if self._tuner is None:
            self._tuner = self._new_tuner(progress, by_need)
        return self._tuner.tune(missing, label)

    def forget(self) -> None:
        """Let go of the base model and of what was gathered from it."""
        self._tuner = None
        self.space.forget_calibration()

    def start_in_context(self, blocks: Mapping[str, str]) -> tuple[Library, Mapping[str, str]]:
        """Where configurations begin to learn together: a library, and addresses in it by node hash.

        Args:
            blocks: addresses of the blocks that the waves have tuned.
        """
        return (self.tuned, blocks) if self.waves else (self.pruned, self.starts)

    def _waves(self) -> Waves | None:
        from ..training.blocks import TRAINERS

        if self.settings is None:
            return None
        return Waves(
            self.scheme,
            self.layout,
            (self.pruned, self.tuned),
            self.starts,
            settings=self.settings.lineage(TRAINERS.get(self.settings.trainer).fields),
            data={name: split.digest for name, split in self.examples.items()},
        )

    def _new_tuner(self, progress: Progress, by_need: bool) -> BlockTuner:
        from ..calibration.teacher import Teacher
        from ..training.blocks import TRAINERS
        from ..training.blocks.tuner import BlockTuner

        assert self.waves is not None  # else nothing is ever missing
        assert self.settings is not None
        sample = self.space.calibration(self.scheme, progress, by_need=by_need)
        teacher = Teacher(sample.model, self.layout, self.space.task, **self.examples, calibration=sample)
        return BlockTuner(teacher, self.waves, TRAINERS.get(self.settings.trainer), self.settings, progress)


def _examples(space: Workspace) -> dict[str, Examples]:
    return {"train": space.examples("train"), "valid": space.examples("valid").first(space.recipe.block.valid_size)}
