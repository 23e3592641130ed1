"""The program against trying everything."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from composer.choosing.program import Part, best_widths
from composer.choosing.wishes import Wish, read_wishes
from composer.errors import ConfigError

numbers = st.lists(st.integers(0, 30), min_size=3, max_size=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=4), st.integers(0, 60), st.integers(0, 60))
def test_no_other_widths_within_both_budgets_cost_less(
    given_parts: list[tuple[list[int], list[int], list[int]]], first: int, second: int
) -> None:
    parts = [Part(str(m), rises, {"a": a, "b": b}) for m, (rises, a, b) in enumerate(given_parts)]
    fitting = [
        sum(part.rises[k] for part, k in zip(parts, widths, strict=True))
        for widths in product(range(3), repeat=len(parts))
        if all(
            sum(part.costs[name][k] for part, k in zip(parts, widths, strict=True)) <= budget
            for name, budget in (("a", first), ("b", second))
        )
    ]
    chosen = best_widths(parts, {"a": first, "b": second})
    if chosen is None:
        assert not fitting
        return
    assert sum(part.costs["a"][k] for part, k in zip(parts, chosen, strict=True)) <= first
    assert sum(part.costs["b"][k] for part, k in zip(parts, chosen, strict=True)) <= second
    assert sum(part.rises[k] for part, k in zip(parts, chosen, strict=True)) == min(fitting)


def test_lists_of_wishes_go_in_parallel_and_one_value_is_repeated() -> None:
    assert read_wishes({"macs": [0.7, 0.5], "parameters": [0.8]}) == [
        Wish({"macs": 0.7, "parameters": 0.8}),
        Wish({"macs": 0.5, "parameters": 0.8}),
    ]


def test_wishes_that_say_nothing_or_contradict_are_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is wished; give one of --keep-macs, --keep-parameters"):
        read_wishes({})
    with pytest.raises(ConfigError, match=r"--keep-macs: got 1\.5; allowed: a part that is kept, 0 < part <= 1"):
        read_wishes({"macs": [0.5, 1.5]})
    with pytest.raises(ConfigError, match="--keep-parameters: got 2 values; allowed: 1 or 3"):
        read_wishes({"macs": [0.7, 0.5, 0.3], "parameters": [0.5, 0.6]})
