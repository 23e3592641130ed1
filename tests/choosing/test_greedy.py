"""The greedy choice against trying everything."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.choosing.greedy import choose, lower_hull, rise_at

COUNTS = (2, 5, 9)
Rises = st.tuples(*[st.floats(0, 10, allow_nan=False, width=32) for _ in COUNTS])
Table = st.lists(Rises, min_size=1, max_size=3).map(
    lambda rows: {f"t{i}": list(zip(COUNTS, row, strict=True)) for i, row in enumerate(rows)}
)


@given(Table, st.integers(0, 27))
def test_no_other_way_to_share_the_count_is_cheaper_on_the_hulls(
    table: dict[str, list[tuple[int, float]]], n: int
) -> None:
    most = COUNTS[-1] * len(table)
    goal = min(n, most)
    choice = choose(table, dict.fromkeys(table, 1), goal)
    hulls = {name: lower_hull(points) for name, points in table.items()}
    every = product(range(COUNTS[-1] + 1), repeat=len(table))
    best = min(
        sum(rise_at(hulls[name], count) for name, count in zip(table, counts, strict=True))
        for counts in every
        if sum(counts) == goal
    )
    assert sum(choice.removed.values()) == goal
    assert choice.rise == pytest.approx(best, abs=1e-9)


@given(Table, st.integers(0, 27))
def test_whole_heads_leave_less_than_one_over_and_single_weights_nothing(
    table: dict[str, list[tuple[int, float]]], n: int
) -> None:
    heads = {"heads": [(8, 0.1), (16, 0.3)], **table}
    units = {name: 4 if name == "heads" else 1 for name in heads}
    goal = min(n, 16)
    removed = choose(heads, units, goal).removed
    assert removed.get("heads", 0) % 4 == 0
    assert sum(removed.values()) == goal or not any(c < COUNTS[-1] for t, c in removed.items() if t != "heads")


def test_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="goal: got 4; at most 3 weights can go"):
        choose({"a": [(3, 1.0)]}, {"a": 1}, 4)
