"""`compose shrink`: what it passes on and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from composer.steps import shrink as step
from composer.steps.outcome import Outcome

from .conftest import Compose


def change(before: int, after: int) -> dict[str, int]:
    return {"before": before, "after": after}


def row(path: str, kind: str, units: tuple[int, int], zeros: int) -> dict[str, Any]:
    sizes = {name: change(2_000, 500) for name in ("parameters", "bytes", "macs")}
    return {
        "layer": "l",
        "path": path,
        "kind": kind,
        "units": change(*units),
        "zeros": zeros,
        **sizes,
        "constant": True,
    }


SUMMARY: dict[str, Any] = {
    "form": "exact",
    "why": "its feed-forwards keep 3 to 5 neurons, and d_ff is one number",
    "rows": [row("l.0.attention", "attention", (8, 2), 0), row("l.0.wi", "feed_forward", (1_536, 0), 12)],
    "parameters": change(4_000_000, 1_000_000),
    "bytes": change(16_000_000, 4_000_000),
    "macs": change(4_000, 1_000),
    "dropped": ["l.1"],
    "verification": {"difference": 2.6e-7, "relative": 1e-8, "generated": 72},
}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the step was given."""
    seen: dict[str, Any] = {}

    def shrink(model: str, output: Path | None, form: str, **options: Any) -> Outcome:
        seen.update({"model": model, "output": output, "form": form, **options})
        return Outcome(output or Path("m-shrunk"), True, SUMMARY)

    monkeypatch.setattr(step, "shrink", shrink)
    return seen


def test_it_says_what_was_kept_which_form_and_how_it_was_verified(compose: Compose, given: dict[str, Any]) -> None:
    result = compose("shrink", "m")
    assert (result.status, given["form"], given["output"], given["targets"]) == (0, "auto", None, ())
    lines = result.out.splitlines()
    assert [line.split()[:4] for line in lines if line.startswith("l.0")] == [
        ["l.0.attention", "2", "of", "8"],
        ["l.0.wi", "0", "of", "1,536"],
    ]
    assert lines[-3:] == [
        "gone whole: l.1",
        "exact: its feed-forwards keep 3 to 5 neurons, and d_ff is one number",
        "m-shrunk: 4,000,000 to 1,000,000 parameters, 16 MB to 4.0 MB, 25.0 % of the MACs; "
        "verified: logits differ by at most 3e-07, 72 generated tokens equal",
    ]


def test_options_are_passed_on_and_json_is_the_whole_report(compose: Compose, given: dict[str, Any]) -> None:
    result = compose("shrink", "m", "-o", "s", "--form", "plain", "--targets", "a", "b", "--force", "--json")
    assert (given["output"], given["form"], given["targets"], given["force"]) == (Path("s"), "plain", ["a", "b"], True)
    assert json.loads(result.out) == {"output": "s", "fresh": True, **SUMMARY}


def test_a_form_that_is_none_is_refused(compose: Compose, given: dict[str, Any]) -> None:
    result = compose("shrink", "m", "--form", "exakt")
    assert result.status == 2
    assert result.err.startswith("error: --form: got 'exakt'; allowed: auto, plain, padded, exact")
    assert not given
