"""Learning back for little: the part `recovery` of `benchmarks/learn.py`.

What biases and norms alone, or low-rank updates under the mask, bring back of what everything does, each at the best of
its rates; masks by `l1`, not repaired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from learn_bench import Bench, Row

    from composer.training.settings import Part

LEARNT: Mapping[Part, tuple[float, ...]] = {
    "all": (1e-5, 3e-5, 1e-4, 3e-4),
    "biases-norms": (1e-3, 1e-2, 3e-2),
    "lora": (3e-3, 1e-2),
}
"""What learns -> the peak rates that are tried."""


def part(bench: Bench) -> None:
    """What each part of a model brings back."""
    dense = bench.row(("dense",), lambda: {"loss": bench.loss(bench.model)})["loss"]
    print(f"\nlearning back under l1 masks, not repaired, {bench.given.recover} steps; dense {dense:.4f}")
    print("removed  what learns  rate  start  loss  share  parameters  optimiser  seconds a step")
    for rate in bench.given.recovered:
        whole: Row | None = None
        for name in bench.given.learns:
            row, peak = _best(bench, rate, name)
            whole = whole or row
            gained, most = (one["start"] - one["loss"] for one in (row, whole))
            share = f"{gained / most:.0%}" if most else "–"  # where no step of all lowers the loss there is none
            taken = f"{row['parameters'] / row['of']:.2%}  {row['optimizer_bytes'] / 2**20:.1f} MiB"
            figures = f"{row['start']:.4f}  {row['loss']:.4f}  {share}  {taken}  {row['step_seconds']:.2f}"
            print(f"{rate:.0%}  {name}  {peak:g}  {figures}")


def _best(bench: Bench, rate: float, name: Part) -> tuple[Row, float]:
    """The best row of one part of the model, and its peak rate."""
    steps, rows = bench.given.recover, []
    for peak in bench.given.all_rates if name == "all" else LEARNT[name]:

        def tune(peak: float = peak) -> Row:
            return bench.tuned(bench.pruned("l1", rate, repair=False), steps, peak, name)

        rows.append((bench.row(("recovery", name, rate, peak, steps), tune), peak))
    return min(rows, key=lambda one: one[0]["loss"])
