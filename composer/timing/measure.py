"""Models timed in turn on every shape of input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..progress import SILENT, Progress
from .clock import Took, in_turn
from .loaded import Loaded
from .macs import why
from .records import Part, Row
from .statistics import Ratio, Spread

if TYPE_CHECKING:
    from torch import Tensor

Clock = Literal["wall", "processor"]


@dataclass(frozen=True)
class Shapes:
    """What is timed: every batch size with every length, and how many new tokens where a model makes some."""

    batch_sizes: Sequence[int]
    lengths: Sequence[int]
    new_tokens: int
    rounds: int

    def all(self) -> list[tuple[int, int]]:
        """Batch size and length of each, in order."""
        return [(batch_size, length) for length in self.lengths for batch_size in self.batch_sizes]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch computes with so many threads within the body."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clock_of(device: str, thread_count: int) -> Clock:
    """Which seconds ratios are of: with one thread on a processor those that it really worked."""
    return "processor" if device == "cpu" and thread_count == 1 else "wall"


def time_in_turn(entries: Sequence[Loaded], shapes: Shapes, clock: Clock, progress: Progress = SILENT) -> list[Row]:
    """Every entry on every shape; rows of one shape were measured in turn, and compared with the first entry.

    Raises:
        InputError: a length that a model does not read; before anything is timed.
    """
    batches = {shape: [entry.batch(*shape, shapes.new_tokens) for entry in entries] for shape in shapes.all()}
    rows: list[Row] = []
    with progress.bar("time in turn", len(batches)) as bar:
        for (batch_size, length), given in batches.items():
            rows += _Shape(entries, given, batch_size, length, shapes, clock).rows()
            bar.advance(f"batch {batch_size}, length {length}")
    return rows


@dataclass(frozen=True)
class _Shape:
    """All entries on one shape of input."""

    entries: Sequence[Loaded]
    batches: Sequence[dict[str, Tensor]]
    batch_size: int
    length: int
    shapes: Shapes
    clock: Clock

    def rows(self) -> Iterator[Row]:
        """A row for each entry; of models that generate two, for the prompt and for new tokens."""
        pairs = list(zip(self.entries, self.batches, strict=True))
        rounds, device = self.shapes.rounds, self.entries[0].device
        if not all(entry.generates for entry in self.entries):
            spent = in_turn([entry.forward(batch) for entry, batch in pairs], rounds, device)
            counts = [entry.macs(batch) for entry, batch in pairs]
            yield from self._compared("forward", spent, counts, self.batch_size * self.length)
            return
        tokens = self.shapes.new_tokens
        spent = in_turn([e.generate(batch, n) for e, batch in pairs for n in (1, 1 + tokens)], rounds, device)
        first, all_of_them = spent[::2], spent[1::2]
        counts = [entry.macs(batch, 1) for entry, batch in pairs]
        yield from self._compared("prompt", first, counts, self.batch_size * self.length)
        # What a token more takes: the first one's run is left out, round by round.
        each = [
            [Took((b.wall - a.wall) / tokens, (b.processor - a.processor) / tokens) for a, b in zip(*two, strict=True)]
            for two in zip(first, all_of_them, strict=True)
        ]
        whole = [entry.macs(batch, 1 + tokens) for entry, batch in pairs]
        more = [None if a is None or b is None else (b - a) // tokens for a, b in zip(counts, whole, strict=True)]
        yield from self._compared("new tokens", each, more, self.batch_size)

    def _compared(
        self, part: Part, spent: Sequence[Sequence[Took]], counts: Sequence[int | None], tokens: int
    ) -> Iterator[Row]:
        seconds = [[getattr(one, self.clock) for one in own] for own in spent]
        for i, own in enumerate(spent):
            wall, processor = (Spread.of([getattr(one, name) for one in own]) for name in ("wall", "processor"))
            faster = Ratio.of(seconds[0], seconds[i]) if i else None
            first, count = counts[0], counts[i]
            ratio = first / count if i and first and count else None
            told = why(first, count, faster.value) if faster and not faster.noisy and first and count else ""
            per_second = tokens / Spread.of(seconds[i]).median
            shape = (i, part, self.batch_size, self.length)
            yield Row(*shape, wall, processor, per_second, count, faster, ratio, told)
