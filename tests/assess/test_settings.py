"""Ranges of rates, and what is refused before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from composer.assess.settings import PARTS, Asked, Settings, parse_rates
from composer.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        (["0:0.9:0.1"], tuple(i / 10 for i in range(1, 10))),
        (["0.5", "0.25"], (0.25, 0.5)),
        (["0.5,0.25", "0:0.5:0.25"], (0.25, 0.5)),
    ],
)
def test_rates(words: list[str], rates: tuple[float, ...]) -> None:
    assert parse_rates(words) == rates


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0.1:0.9"], "--rates: got '0.1:0.9'; allowed: "),
        (["half"], "--rates: got 'half'"),
        (["0:0.9:0.0001"], "more than 1,000 rates"),
        (["0"], "no rate above 0"),
        (["1.5"], "--rates"),
    ],
)
def test_words_that_are_no_rates(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_rates(words)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"criteria": ("l3",)}, "--criteria: .*'l3'"),
        ({"criteria": ("global_l1",)}, "--criteria: got 'global_l1', which sets its own rates"),
        ({"granularities": ("head",)}, "--granularities: got 'head'"),
        ({"granularities": ("4:2",)}, "--granularities: .*4:2"),
        ({"sparsity": 1.0}, "--sparsity: got 1"),
        ({"parts": ("curve",)}, "--parts: got 'curve'; .*did you mean 'curves'"),
        ({"parts": ("calibration",)}, "--calibration: nothing given"),
        ({"parts": ("curves",), "calibrations": ("a.jsonl",)}, "--calibration: not together with --parts"),
        ({"parts": ("runtime",), "asked": Asked(("glue",))}, "--suite: not together with --parts that leave curves"),
        ({"parts": ("curves",), "beside": ("a",)}, "--beside: draws curves of suites together; name --suite"),
    ],
)
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Settings(**given)


def test_all_parts_that_can_be_made_are() -> None:
    assert Settings().parts == tuple(part for part in PARTS if part != "calibration")
    assert Settings(calibrations=("a.jsonl",)).parts == PARTS
