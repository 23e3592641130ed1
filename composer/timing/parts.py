"""Seconds of every kind of part of a model at a few widths, from whole models in which that kind has the width.

Whole models are timed, not modules by themselves: a module that is run again and again finds its weights in the
processor's caches, in a model it seldom does. With ``g_k(w)`` the seconds of one part of kind k at width w (0 at no
width) and ``rest`` those of everything else, a model takes ``rest + Σ_parts g_k(w)``. In turn are timed the base model,
one with nothing left, and for every kind k and width w one in which that kind has w and all others have half; the
unknowns follow by least squares on relative distances. That times of parts add up is an assumption; ``fit`` says how
well the sums meet what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..choosing.times import Curve, Times, grid, kind_of
from ..models.folder import BaseModel
from ..progress import SILENT, Progress
from ..shrinking.units import Units
from ..tensors.forward import hooked
from .clock import Work, in_turn, took
from .loaded import Loaded
from .measure import Clock, clock_of, threads
from .smaller import SmallerModels
from .statistics import Spread, interval

if TYPE_CHECKING:
    from torch import nn

ROUND = 4.0
"""Seconds that a round over all models may take; where it takes longer, there are fewer rounds."""
Runtime = Literal["torch", "onnx"]
Kept = Mapping[str, int]
Export = Callable[[BaseModel, Path], object]


@dataclass(frozen=True)
class Setting:
    """What is timed: batch size and length of an input, new tokens where a model generates; where, and how often."""

    batch_size: int = 1
    length: int = 128
    new_tokens: int = 32
    runtime: Runtime = "torch"
    threads: int = 1
    device: str = "cpu"
    repeat: int = 15

    @property
    def clock(self) -> Clock:
        """Which seconds are taken."""
        return clock_of(self.device, self.threads)


class PartTimer:
    """Times models of any widths of one base model, all in turn."""

    def __init__(self, base: BaseModel, units: Sequence[Units], setting: Setting, export: Export | None = None) -> None:
        """The base model is loaded.

        Args:
            export: writes a model for another runtime into an empty folder; PyTorch needs none.
        """
        self.units, self.setting, self.export = units, setting, export
        self.smaller = SmallerModels(base, units, setting.device)

    def table(self, progress: Progress = SILENT, **how: Any) -> Times:
        """Seconds of every kind of part.

        Args:
            how: what the table says of machine and versions.
        """
        designs = list(self._designs())
        spent = steadied(self.measure(designs, progress))
        middles = [Spread.of(own).median for own in spent]
        widths = {kind_of(units): grid(units) for units in self.units}
        places = [(kind, width) for kind, own in widths.items() for width in own if width]
        rows = np.zeros((len(designs), 1 + len(places)))
        for row, kept in zip(rows, designs, strict=True):
            row[0] = 1
            for units in self.units:
                if width := kept[units.path]:
                    row[1 + places.index((kind_of(units), width))] += 1
        scaled = rows / np.array(middles)[:, None]
        found = np.linalg.lstsq(scaled, np.ones(len(designs)), rcond=None)[0]
        rest, known = max(0.0, float(found[0])), dict(zip(places, found[1:].clip(0), strict=True))
        curves = {
            kind: Curve(own, rising([0.0, *(float(known[kind, width]) for width in own if width)]))
            for kind, own in widths.items()
        }
        return Times(
            curves=curves,
            rest=rest,
            around=self._around(),
            dense=middles[0],
            spread=float(np.median([_spread(own) for own in spent])),
            fit=float(np.abs(scaled @ found - 1).max()),
            how={**how, "clock": self.setting.clock},
        )

    def measure(self, kept: Sequence[Kept], progress: Progress = SILENT) -> list[list[float]]:
        """Seconds of models with these widths, round by round, all in turn."""
        setting = self.setting
        with threads(setting.threads), ExitStack() as stack, progress.bar("time parts", len(kept)) as bar:
            works = []
            for own in kept:
                works.append(self._work(self._loaded(own, stack)))
                bar.advance()
            spent = in_turn(works, setting.repeat, self.smaller.device, ROUND * setting.repeat)
        return [[getattr(one, setting.clock) for one in own] for own in spent]

    def _designs(self) -> list[Kept]:
        """The base model, one with nothing left, and every kind at every width with the others at half."""
        half = {units.path: _nearest(grid(units), units.count / 2) for units in self.units}
        designs: list[Kept] = [self.smaller.everywhere(1.0), self.smaller.everywhere(0.0)]
        kinds = {kind_of(units): units for units in self.units}
        for kind, like in kinds.items():
            designs += [
                {u.path: width if kind_of(u) == kind else half[u.path] for u in self.units} for width in grid(like)
            ]
        return designs

    def _loaded(self, kept: Kept, stack: ExitStack) -> Loaded:
        if self.export is None:
            return self.smaller.loaded(kept)
        masked = Path(stack.enter_context(TemporaryDirectory()))
        exported = Path(stack.enter_context(TemporaryDirectory()))
        self.export(self.smaller.save(kept, masked), exported)
        return Loaded.exported(BaseModel(exported))

    def _work(self, entry: Loaded) -> Work:
        s = self.setting
        batch = entry.batch(s.batch_size, s.length, s.new_tokens)
        return entry.generate(batch, s.new_tokens) if entry.generates else entry.forward(batch)

    def _around(self) -> dict[str, float]:
        """Which part of the rest is inside the layers (norms, residual sums), and which around them."""
        empty = self.smaller.loaded(self.smaller.everywhere(0.0))
        work, inside = self._work(empty), 0.0
        layers = [b.path for b in self.smaller.base.layout.at("layer")]
        with threads(self.setting.threads), _clocked(empty.model, layers) as clock:
            work()
            clock.seconds = 0.0
            whole = sum(took(work).wall for _ in range(5))
            inside = min(1.0, clock.seconds / whole)
        search = " and search" if empty.generates else ""
        return {f"embeddings, output layer{search}": 1 - inside, "norms and sums of the layers": inside}


@dataclass
class _Clock:
    """Adds up the seconds between a start and the next stop."""

    seconds: float = 0.0
    since: float = 0.0

    def start(self, *_: Any) -> None:
        self.since = perf_counter()

    def stop(self, *_: Any) -> None:
        self.seconds += perf_counter() - self.since


@contextmanager
def _clocked(model: nn.Module, paths: Sequence[str]) -> Iterator[_Clock]:
    """Within the body, the seconds that ``model`` spends in some of its modules, none of them inside another."""
    clock, known = _Clock(), dict(model.named_modules())
    modules = [known[path] for path in paths if path in known]
    starts = (module.register_forward_pre_hook(clock.start) for module in modules)
    with hooked(chain(starts, (module.register_forward_hook(clock.stop) for module in modules))):
        yield clock


def steadied(spent: Sequence[Sequence[float]]) -> list[list[float]]:
    """Seconds of works that took turns, as if all rounds had run on an equally quick machine.

    What else a machine does slows whole rounds down, or its clock falls: each round is divided by its geometric mean
    over the works, relative to the median round's.

    >>> steadied([[1.0, 2.0, 1.0], [4.0, 8.0, 4.0]])
    [[1.0, 1.0, 1.0], [4.0, 4.0, 4.0]]
    """
    times = np.array(spent)
    rounds = np.exp(np.log(times).mean(axis=0))
    return [list(map(float, own)) for own in times / (rounds / np.median(rounds))]


def rising(values: Sequence[float]) -> list[float]:
    """The nearest values that never fall, by pooling neighbours that do (isotonic regression): more takes no less time.

    >>> rising([0.0, 2.0, 1.0, 3.0])
    [0.0, 1.5, 1.5, 3.0]
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before, many = pools.pop()
            total, count = total + before, count + many
        pools.append((total, count))
    return [total / count for total, count in pools for _ in range(count)]


def _nearest(widths: Sequence[int], wanted: float) -> int:
    return min(widths, key=lambda width: abs(width - wanted))


def _spread(seconds: Sequence[float]) -> float:
    """How far the interval of the median reaches from it, relative."""
    middle = Spread.of(seconds).median
    return max(abs(end / middle - 1) for end in interval(seconds))
