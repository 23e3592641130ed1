"""When composing pays: the closed forms against adding up both sides, configuration by configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.errors import RecipeError
from composer.forecast.verdict import ASSUMED, LEARNT, Costs, Share, verdict_of

seconds = st.floats(0.01, 100)
COSTS = st.builds(
    Costs,
    st.lists(seconds, min_size=1, max_size=8).map(lambda new: [sum(new[:k]) for k in range(1, len(new) + 1)]),
    seconds,
    seconds,
    seconds,
)


def gap(costs: Costs, share: float, k: int) -> float:
    """Composed less baseline, for the first ``k`` configurations."""
    composed = costs.search + costs.blocks[k - 1] + sum(costs.compose + share * costs.whole for _ in range(k))
    return composed - sum(costs.whole for _ in range(k))


@given(COSTS, st.floats(0, 1))
def test_it_pays_from_where_no_gap_is_left(costs: Costs, share: float) -> None:
    start, n = costs.pays_from(share), len(costs.blocks)
    gaps = [gap(costs, share, k) for k in range(1, n + 1)]
    if start is None or start > n:
        assert gaps[-1] > -1e-6
    else:
        assert max(gaps[start - 1 :]) <= 1e-6
        assert start == 1 or gaps[start - 2] > -1e-6


@given(COSTS)
def test_the_largest_share_closes_the_gap_here(costs: Costs) -> None:
    assert gap(costs, costs.break_even, len(costs.blocks)) == pytest.approx(0, abs=1e-6)


def test_the_verdict_in_words() -> None:
    costs = Costs([30.0, 40.0, 50.0, 60.0], 100.0, 1.0, 20.0)
    told = verdict_of(costs, Share(0.25, "assumed"), {"baseline": 410.0, "composed": 194.0})
    assert (told["pays_from"], told["here"]) == (1, 4)
    assert told["break_even_share"] == pytest.approx(0.79)
    assert (
        "composing pays from 1 configuration on; here there are 4, with 2.1x less work in all (194 s against"
        in (told["text"])
    )
    assert "as long as composed models need at most 79% of the baseline's steps" in told["text"]


def test_a_loss_is_said_plainly() -> None:
    costs = Costs([300.0, 600.0], 100.0, 1.0, 0.0)
    text = verdict_of(costs, Share(0.25, "assumed"), {"baseline": 210.0, "composed": 662.0})["text"]
    assert "composing does not pay at these settings" in text
    assert "3.2x more work" in text
    assert "not pay here even if composed models needed no step at all" in text


def comparison(folder: Path, shares: list[float | None]) -> Path:
    budget = {"share": 1.0, "steps": 9, "loss": 2.0, "reached": True, "seconds": 3.0}
    rows: list[dict[str, Any]] = [
        {"configuration": i, "share": share, "budgets": [budget]} for i, share in enumerate(shares)
    ]
    path = folder / "comparison.json"
    path.write_text(json.dumps({"result": {"rows": [*rows, {"configuration": 9, "share": None, "budgets": []}]}}))
    return path


def test_the_share_is_given_or_measured_or_assumed(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    assert Share.of(None, path) == Share(ASSUMED, "assumed; --share says otherwise")
    comparison(tmp_path, [])
    assert Share.of(None, path).value == ASSUMED
    comparison(tmp_path, [0.25, 0.5])
    assert Share.of(None, path) == Share(0.375, "mean of 2 in comparison.json")
    comparison(tmp_path, [0.5, None])
    assert Share.of(None, path) == Share(0.75, "mean of 2 in comparison.json, of which 1 never reached it")
    assert Share.of(0.1, path) == Share(0.1, "given")
    assert Share.of(None, path, steps=120, together=120).value == 0.75


@pytest.mark.parametrize(
    ("steps", "together", "value"),
    [(60, 60, LEARNT), (300, 299, ASSUMED), (900, 1349, ASSUMED), (900, 1350, LEARNT), (5000, 7500, LEARNT)],
)
def test_enough_joint_steps_depend_on_the_length(steps: int, together: int, value: float, tmp_path: Path) -> None:
    share = Share.of(None, tmp_path / "none.json", steps=steps, together=together)
    assert share.value == value
    assert share.source.startswith("measured on T5 after" if value == LEARNT else "assumed, as")


def test_a_finish_of_no_step_is_said_so() -> None:
    costs = Costs([140.0, 150.0], 100.0, 1.0, 0.0)
    told = verdict_of(costs, Share(0.0, "measured"), {"baseline": 200.0, "composed": 152.0})
    assert told["pays_from"] == 2
    assert told["text"].startswith("If composed models need no step of their own (measured), composing pays from 2")


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none(share: float, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--share: got .*; allowed: 0 to 1"):
        Share.of(share, tmp_path / "none.json")
