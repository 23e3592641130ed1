"""Seconds of parts add up to those of models of any widths, on a machine whose clock counts work."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from composer.choosing import times
from composer.models.folder import BaseModel
from composer.shrinking.units import units_of
from composer.timing import parts
from composer.timing.clock import Took, took
from composer.timing.parts import PartTimer, Setting, rising, steadied
from tests.conftest import Folder
from tests.reference.work_clock import WorkClock


def once(works: Sequence[Any], *_: Any) -> list[list[Took]]:
    """Instead of many turns: where work is counted, all are alike."""
    return [[took(work)] for work in works]


@pytest.mark.parametrize("name", ["t5", "gpt2", "llama", "deberta"])
def test_sums_of_parts_are_the_seconds_of_models_of_other_widths(
    name: str, model_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = BaseModel(model_folder(name))
    units = list(units_of(base.layout))
    monkeypatch.setattr(times, "GRID", (0.0, 0.5, 1.0))
    monkeypatch.setattr(parts, "in_turn", once)
    timer = PartTimer(base, units, Setting(batch_size=2, length=8, new_tokens=2))
    draw = random.Random(0)
    some = [{u.path: draw.choice(times.grid(u)) for u in units} for _ in range(2)]
    with WorkClock() as clock:
        for counter in ("perf_counter", "process_time"):
            monkeypatch.setattr(time, counter, clock.now)
        monkeypatch.setattr(parts, "perf_counter", clock.now)
        table = timer.table()
        measured = timer.measure(some)
    for kept, (seconds,) in zip(some, measured, strict=True):
        assert table.total(kept, units) == pytest.approx(seconds, rel=0.03)
    assert table.total({u.path: u.count for u in units}, units) == pytest.approx(table.dense, rel=0.03)
    assert sum(table.around.values()) == pytest.approx(1)


def test_rounds_on_a_slower_machine_count_like_others_and_more_takes_no_less_time() -> None:
    assert steadied([[1.0, 3.0, 1.0], [2.0, 6.0, 2.0]]) == [[1.0] * 3, [2.0] * 3]
    assert rising([0.0, 3.0, 1.0, 2.0, 5.0]) == [0.0, 2.0, 2.0, 2.0, 5.0]
