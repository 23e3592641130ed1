"""How many joint steps a length wants, by default and as it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.training.length import ENOUGH, about_length, enough, joint_steps


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
