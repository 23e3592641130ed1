"""How many joint steps a length wants, by default and as it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.training.length import ENOUGH, about_length, enough, joint_steps, most_turns, turns


@pytest.mark.parametrize(("steps", "factor"), ENOUGH.items())
def test_what_was_measured_is_taken_as_it_is(steps: int, factor: float) -> None:
    assert joint_steps(steps, None) == round(factor * steps)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_longer_training_never_wants_a_smaller_multiple(one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert min(ENOUGH.values()) <= enough(short) <= enough(long) <= max(ENOUGH.values())


def test_what_is_told_wins() -> None:
    assert (joint_steps(900, 1.25), joint_steps(2, 0.1)) == (1125, 1)


@pytest.mark.parametrize(("steps", "beyond"), [(900, False), (901, True)])
def test_a_length_that_nobody_measured_is_called_so(steps: int, beyond: bool) -> None:
    text = about_length(steps, 3 * steps)
    assert f"{3 * steps:,} steps for all configurations together, 3 times" in text
    assert ("longer ones were not measured" in text) == beyond


@given(st.floats(1, 8), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_what_lacks_more_is_drawn_no_less_often_and_nothing_is_left_out(most: float, sparsities: list[float]) -> None:
    often = turns(most, sparsities)
    assert min(often) == 1
    assert max(often) <= round(most)
    assert [count for _, count in sorted(zip(sparsities, often, strict=True))] == sorted(often)


def test_turns_go_by_what_is_lacking_over_what_is_kept() -> None:
    assert turns(4, [0.6, 0.6, 0.6]) == [1, 1, 1]
    assert turns(4, [1 / 2, 2 / 3, 3 / 4]) == [1, 2, 3]
    assert turns(4, [0.0, 0.1, 1.0]) == [1, 4, 4]


def test_in_short_phases_all_take_turns_alike() -> None:
    assert turns(most_turns(120), [0.1, 0.9]) == [1, 1]
    assert turns(most_turns(1350), [0.1, 0.9]) == [1, 4]
