"""Levels of a part: from whole to gone, and what they cost from what a few of them cost."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from composer.choosing.widths import RATES, SHARES, Level, at_levels, levels, looked_at, parameters
from composer.models.folder import BaseModel
from composer.shrinking.units import units_of


def test_levels_cost_what_was_measured_and_between_widths_in_proportion(distilbert_folder: Path) -> None:
    attention, feed_forward = list(units_of(BaseModel(distilbert_folder).layout))[:2]
    for part in (attention, feed_forward):
        every = levels(part, weights=True)
        left = [parameters(part, level) for level in every]
        assert (every[0], every[-1]) == (Level(part.count), Level(0))
        assert all(more >= fewer for more, fewer in pairwise(left))
        assert [level for level in every if not level.rate] == levels(part, weights=False)
        assert [level.rate for level in every if level.rate] == list(RATES)
        # Whatever is a straight line is found exactly; weights cost a constant more.
        line = {level: part.count - level.kept + (5 + level.rate if level.rate else 0.0) for level in looked_at(part)}
        assert at_levels(part, line) == pytest.approx(
            [5 + level.rate if level.rate else part.count - level.kept for level in every]
        )
    dips = {level: 1.0 if level.kept == round(SHARES[0] * attention.count) else 0.5 for level in looked_at(attention)}
    found = dict(zip(levels(attention, weights=True), at_levels(attention, dips), strict=True))
    assert (found[Level(attention.count)], found[Level(0)], found[Level(attention.count, RATES[0])]) == (0.0, 1.0, 0.5)
