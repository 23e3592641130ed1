"""The part `time` of `benchmarks/choose.py`: the table of seconds against the clock, 20 random compositions."""

from __future__ import annotations

import random
import time
from statistics import median

from choose_bench import Bench, Row

from composer.choosing.choice import Choice
from composer.choosing.widths import widths
from composer.timing.parts import PartTimer, Setting, steadied
from composer.timing.statistics import Spread


def compositions(bench: Bench, count: int) -> list[Choice]:
    """Random widths, each part drawn by itbench."""
    draw = random.Random(bench.seed)
    return [bench.menu.choice([draw.randrange(len(widths(u))) for u in bench.units]) for _ in range(count)]


def predicted_times(bench: Bench) -> Row:
    """Predicted against measured ratios to the base model."""
    setting = Setting(bench.given.batch_size, bench.given.length, repeat=bench.given.repeat)

    def make() -> Row:
        timer = PartTimer(bench.space.base, bench.units, setting)
        start = time.perf_counter()
        table, took = timer.table(), time.perf_counter()
        whole = {u.path: u.count for u in bench.units}
        some = [dict(one.kept) for one in compositions(bench, 20)]
        spent = [Spread.of(own).median for own in steadied(timer.measure([whole, *some]))]
        sums = [table.total(kept, bench.units) for kept in (whole, *some)]
        errors = [abs(s / sums[0] * spent[0] / t - 1) for s, t in zip(sums[1:], spent[1:], strict=True)]
        told = {"table_seconds": took - start, "spread": table.spread, "fit": table.fit}
        return {"median": median(errors), "worst": max(errors), "errors": errors, **told}

    return bench.row(("time", bench.given.batch_size, bench.given.length, bench.given.repeat), make)
