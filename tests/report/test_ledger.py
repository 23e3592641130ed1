"""The ledger: sums worked out by hand, and from how many configurations composing pays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.report import ledger as ledgers
from composer.report.growth import JointPhase, JointPoint, Work
from composer.report.ledger import pays_from
from composer.report.records import Budget, Ledger, Masks, PrunedRun, Row, Run, Search, Start

NO_SEARCH: dict[str, Any] = {
    "configuration": None,
    "chosen": {"baseline": 0.001, "composed": 0.001},
    "baseline": [],
    "composed": [],
}
DENSE = Run(loss=1.0, seconds=50.0, steps=100)  # half a second for each step


def ledger_of(work: Work, dense: Run | None) -> dict[str, Any]:
    """The ledger as a reader of the file finds it."""
    return ledgers.ledger_of(work, dense).plain()


def verdict_of(rows: list[Row], ledger: dict[str, Any]) -> str:
    return ledgers.verdict_of(rows, Ledger.model_validate(ledger))


def row(baseline: float, composed: float, share: float | None, *, full: float = 0.0, composing: float = 0.0) -> Row:
    """A row in which the baseline took ``baseline`` seconds and the run that ``share`` names ``composed``."""
    spent = [(0.25, composed if share == 0.25 else 7.0)]
    if share is not None and share != 0.25:
        spent.append((share, composed))
    last = len(spent) - 1
    budgets = [
        Budget(
            share=part,
            steps=50 if place else 25,
            loss=1.0 if part == share else 2.0,
            reached=part == share,
            seconds=seconds,
            curve=((0.0, 2.0), (seconds, 0.5 if place == last else 2.0)),
        )
        for place, (part, seconds) in enumerate(spent)
    ]
    alone = ((0.0, 3.0), (baseline / 2, 1.0), (baseline, 4.0))
    return Row(
        configuration=0,
        pruned=Start(loss=3.0),
        composed=Start(loss=2.0),
        baseline=PrunedRun(seconds=baseline, loss=1.0, steps=100, curve=alone),
        finetuned=PrunedRun(seconds=full or composed, loss=1.0, compose_seconds=composing, steps=100),
        budgets=tuple(budgets),
        share=share,
    )


def work(rows: list[Row], blocks: list[dict[str, float]], search: Any = None, prune: float = 4.0, **more: Any) -> Work:
    return Work(prune, blocks, rows, Search.model_validate(search or NO_SEARCH), **more)


def seconds(ledger: dict[str, Any], text: str, side: str) -> float:
    return sum(entry["seconds"] for entry in ledger["rows"] if text in entry["work"] and entry["side"] == side)


def searched(configuration: int, baseline: dict[float, float], composed: dict[float, float]) -> dict[str, Any]:
    """A search in which the first rate of each side won; rates -> seconds."""

    def tried(side: dict[float, float]) -> list[dict[str, float]]:
        return [
            {"learning_rate": rate, "loss": place, "seconds": taken, "steps": 9}
            for place, (rate, taken) in enumerate(side.items())
        ]

    return {
        "configuration": configuration,
        "chosen": {"baseline": next(iter(baseline)), "composed": next(iter(composed))},
        "baseline": tried(baseline),
        "composed": tried(composed),
    }


def test_two_configurations_by_hand() -> None:
    rows = [row(40.0, 10.0, 0.25, full=39.0, composing=1.0), row(44.0, 20.0, 0.5, full=43.0, composing=2.0)]
    ledger = ledger_of(work(rows, [{"a": 6.0, "b": 5.0}, {"b": 5.0, "c": 9.0}]), DENSE)
    assert ledger["step_seconds"] == 0.5
    assert seconds(ledger, "prune", "both") == 4
    assert seconds(ledger, "block-level", "composed") == 6 + 5 + 9  # b serves both
    assert seconds(ledger, "compose the models", "composed") == 1 + 2
    assert seconds(ledger, "whole", "baseline") == 40 + 44
    assert seconds(ledger, "until they reach", "composed") == 10 + 20
    assert ledger["baseline"] == {"seconds": 4 + 84, "steps": 2 * (4 + 84)}
    assert ledger["composed"] == {"seconds": 4 + 20 + 3 + 30, "steps": 2 * (4 + 20 + 3 + 30)}
    assert all(entry["steps"] == 2 * entry["seconds"] for entry in ledger["rows"])
    assert ledger["here"] == 2
    spent = [(k["blocks"], k["baseline"]["seconds"], k["composed"]["seconds"]) for k in ledger["growth"]]
    assert spent == [(11, 4 + 40, 4 + 11 + 1 + 10), (20, 4 + 84, 4 + 20 + 3 + 30)]
    trained = {(entry["work"].split()[0], entry["side"]): (entry["trained"], entry["of"]) for entry in ledger["rows"]}
    assert trained["fine-tune", "baseline"] == (200, 2)
    assert trained["fine-tune", "composed"] == (25 + 50, 2)


def test_composing_that_takes_long_delays_when_it_pays() -> None:
    blocks = [{"a": 35.0}] * 3
    quick, slow = ([row(40.0, 20.0, 0.5, composing=taken)] * 3 for taken in (0.0, 7.0))
    assert ledger_of(work(quick, blocks), DENSE)["pays_from"] == 2
    assert ledger_of(work(slow, blocks), DENSE)["pays_from"] == 3  # 35 lost, 13 gained with each


JOINT_PHASE = JointPhase(
    seconds=12.0,
    steps=60,
    configurations=2,
    curve=[
        JointPoint(0.0, 2.5, [2.0, 3.0]),
        JointPoint(6.0, 1.5, [2.2, 0.8]),
        JointPoint(12.0, 1.75, [1.5, 2.0]),
    ],
)


def test_the_joint_phase_is_told_by_itself_and_counts_once() -> None:
    rows = [row(40.0, 10.0, 0.25), row(40.0, 10.0, 0.25)]
    more = {"joint": JOINT_PHASE, "masks": Masks(criterion="obs", same=True)}
    told = ledger_of(work(rows, [{"a": 6.0, "shared": 12.0}, {"b": 5.0, "shared": 12.0}], **more), DENSE)
    assert seconds(told, "block-level", "composed") == 6 + 5
    (joint,) = (entry for entry in told["rows"] if "joint" in entry["work"])
    assert (joint["side"], joint["seconds"], joint["trained"], joint["of"]) == ("composed", 12, 60, 2)
    assert [k["blocks"] for k in told["growth"]] == [18, 23]
    assert told["composed"]["seconds"] == 4 + 11 + 12 + 20
    assert told["masks"] == {"criterion": "obs", "same": True}


def test_lines_go_from_what_pruning_left_to_what_the_ledger_adds_up_to() -> None:
    rows = [row(40.0, 10.0, 0.25, composing=1.0), row(44.0, 10.0, 0.5)]
    blocks = [{"a": 6.0, "shared": 12.0}, {"b": 5.0, "shared": 12.0}]
    told = ledger_of(work(rows, blocks, joint=JOINT_PHASE), DENSE)
    one, two = told["lines"]

    def points(line: dict[str, Any], side: str) -> list[tuple[float, float]]:
        assert all(point["steps"] == 2 * point["seconds"] for point in line[side])
        return [(point["seconds"], point["loss"]) for point in line[side]]

    # Pruned; blocks made; 30 steps, the lowest mean of all; the last 30 made it worse; composed; finished.
    assert points(one, "composed") == [(4, 3), (10, 2), (16, 2.2), (22, 2.2), (23, 2), (33, 0.5)]
    assert points(two, "composed") == [(4, 3), (15, 2.5), (21, 1.5), (27, 1.5), (28, 2), (48, 0.5)]
    assert points(one, "baseline") == [(4, 3), (24, 1), (44, 1)]  # its best weights are kept
    assert points(two, "baseline") == [(4, 3), (46, 1), (88, 1)]
    for line, total in zip(told["lines"], told["growth"], strict=True):
        for side in ("baseline", "composed"):
            assert points(line, side)[-1][0] == total[side]["seconds"]


def test_the_totals_are_the_sums_of_their_rows() -> None:
    search = searched(0, {0.1: 40.0, 0.2: 41.0}, {0.3: 39.0, 0.4: 12.0})
    rows = [row(40.0, 10.0, 0.25, full=39.0), row(44.0, 20.0, 0.5, full=43.0)]
    ledger = ledger_of(work(rows, [{"a": 6.0}, {"b": 5.0}], search), DENSE)
    for side in ("baseline", "composed"):
        own = sum(entry["seconds"] for entry in ledger["rows"] if entry["side"] in (side, "both"))
        assert ledger[side]["seconds"] == own


def test_where_no_budget_reached_the_whole_run_is_charged() -> None:
    ledger = ledger_of(work([row(40.0, 0.0, None, full=39.0)], [{"a": 6.0}]), DENSE)
    assert seconds(ledger, "until they reach", "composed") == 39


def test_budgets_that_were_tried_in_vain_are_not_charged() -> None:
    ledger = ledger_of(work([row(40.0, 20.0, 0.5)], [{}]), DENSE)
    assert seconds(ledger, "until they reach", "composed") == 20  # 7 s at a quarter were a measurement


def test_work_that_took_no_time_has_no_row() -> None:
    ledger = ledger_of(work([row(40.0, 20.0, 0.5)], [{}]), DENSE)
    assert "block-level" not in " ".join(entry["work"] for entry in ledger["rows"])
    assert "search" not in " ".join(entry["work"] for entry in ledger["rows"])


def test_the_winner_of_the_baselines_search_is_counted_once() -> None:
    search = searched(1, {0.1: 44.0, 0.2: 45.0, 0.4: 46.0}, {0.1: 20.0})
    rows = [row(40.0, 10.0, 0.5), row(44.0, 20.0, 0.5)]
    ledger = ledger_of(work(rows, [{}, {}], search), DENSE)
    assert seconds(ledger, "search", "baseline") == 45 + 46
    assert ledger["baseline"]["seconds"] == 4 + (40 + 44) + (45 + 46)


@pytest.mark.parametrize(
    ("share", "charged"),
    [
        (1.0, 12.0),  # the winner is the run of the middle configuration, charged there
        (None, 12.0),
        (0.25, 39.0 + 12.0),  # a shorter run is charged there, so the search cost its winner as well
    ],
)
def test_the_winner_of_the_composed_search_counts_where_it_is_not_the_run_charged(
    share: float | None, charged: float
) -> None:
    search = searched(0, {0.1: 40.0}, {0.3: 39.0, 0.4: 12.0})
    rows = [row(40.0, 39.0 if share == 1 else 10.0, share, full=39.0)]
    ledger = ledger_of(work(rows, [{}], search), DENSE)
    assert seconds(ledger, "search", "composed") == charged


@pytest.mark.parametrize("missing", ["baseline", "finetuned"])
def test_an_incomplete_table_has_no_ledger(missing: str) -> None:
    rows = [row(40.0, 10.0, 0.25), row(44.0, 20.0, 0.5).model_copy(update={missing: None})]
    ledger = ledger_of(work(rows, [{}, {}]), DENSE)
    assert (ledger["rows"], ledger["baseline"], ledger["composed"]) == ([], None, None)
    assert (ledger["growth"], ledger["lines"]) == ([], [])
    assert (ledger["pays_from"], ledger["step_seconds"], ledger["here"]) == (None, None, 2)


def test_without_a_dense_run_there_is_no_ledger() -> None:
    rows = [row(40.0, 10.0, 0.25)]
    assert ledger_of(work(rows, [{}]), None)["rows"] == []


def test_composing_pays_when_the_blocks_are_paid_off_by_the_second_configuration() -> None:
    rows = [row(40.0, 20.0, 0.5), row(40.0, 20.0, 0.5), row(40.0, 20.0, 0.5)]
    assert ledger_of(work(rows, [{"a": 35.0}, {"a": 35.0}, {"a": 35.0}]), DENSE)["pays_from"] == 2


def test_blocks_of_later_configurations_are_charged_when_they_come() -> None:
    rows = [row(40.0, 20.0, 0.5), row(40.0, 20.0, 0.5), row(40.0, 20.0, 0.5)]
    ledger = ledger_of(work(rows, [{"a": 35.0}, {"a": 35.0, "b": 30.0}, {"a": 35.0}]), DENSE)
    # Seconds lost after 1, 2 and 3 configurations: 15, 25 and 5; that is 5 gained with each on average.
    assert ledger["pays_from"] == 4


def test_pruning_is_on_both_sides_and_changes_nothing_about_when_it_pays() -> None:
    rows = [row(40.0, 20.0, 0.5), row(40.0, 20.0, 0.5)]
    blocks = [{"a": 35.0}, {"a": 35.0}]
    cheap, dear = (ledger_of(work(rows, blocks, prune=prune), DENSE) for prune in (0.0, 1e6))
    assert cheap["pays_from"] == dear["pays_from"] == 2


def test_the_composed_sides_search_delays_when_it_pays() -> None:
    rows = [row(40.0, 20.0, 0.5), row(40.0, 20.0, 0.5)]
    search = searched(1, {0.1: 40.0}, {0.3: 30.0, 0.4: 12.0})
    # 42 s of trials, all of them beside the runs charged: gaps 22 and 2, 20 s gained with each.
    assert ledger_of(work(rows, [{}, {}], search), DENSE)["pays_from"] == 3


@pytest.mark.parametrize(
    ("gaps", "wanted"),
    [
        ([-1.0], 1),
        ([0.0], 1),
        ([0.5], None),  # one point has no slope
        ([3.0, 1.0, -1.0], 3),
        ([5.0, -1.0, -2.0], 2),
        ([5.0, -1.0, 2.0], 5),  # paid at two, no longer at three; 1.5 gained each on average
        ([-1.0, 2.0, 5.0], None),
        ([3.0, 3.0], None),
        ([3.0, 4.0], None),
        ([3.0, 2.0], 4),
        ([3.0, 1.5], 3),
        ([10.0, 9.0, 7.0], 8),  # 1.5 gained each on average: 7 / 1.5 rounds up to 5 more
    ],
)
def test_pays_from_by_hand(gaps: list[float], wanted: int | None) -> None:
    assert pays_from(gaps) == wanted


@given(st.lists(st.integers(-40, 40), min_size=1, max_size=8))
def test_pays_from_is_the_first_count_from_which_there_is_no_gap(gaps: list[int]) -> None:
    n = len(gaps)
    # In units of 1 / (n - 1) the mean slope is a whole number, so counting on is exact.
    scale = max(1, n - 1)
    slope = gaps[-1] - gaps[0] if n > 1 else 0
    line = [gap * scale for gap in gaps]
    if gaps[-1] > 0:  # beyond what is measured the slope only says when a debt is paid
        line += [line[-1] + slope * more for more in range(1, 41 * scale)]
    wanted = next((k for k in range(1, len(line) + 1) if max(line[k - 1 :]) <= 0), None)
    assert pays_from([float(gap) for gap in gaps]) == wanted


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=6))
def test_pays_from_takes_any_seconds(gaps: list[float]) -> None:
    found = pays_from(gaps)
    assert found is None or found >= 1
    assert (found is not None and found <= len(gaps)) == (gaps[-1] <= 0)


def ledger(ours: float, theirs: float, pays: int | None) -> dict[str, Any]:
    line = {"work": "prune every variant", "side": "both", "seconds": 1.0, "steps": 2.0}
    sides = {"composed": {"seconds": ours, "steps": 2 * ours}, "baseline": {"seconds": theirs, "steps": 2 * theirs}}
    return {"rows": [line], **sides, "pays_from": pays}


def compared(start: tuple[float, float], end: tuple[float, float], share: float | None) -> Row:
    """Losses as (baseline, composed)."""
    return Row(
        configuration=0,
        pruned=Start(loss=start[0]),
        composed=Start(loss=start[1]),
        baseline=PrunedRun(loss=end[0], steps=100, seconds=1.0),
        finetuned=PrunedRun(loss=end[1], steps=100, seconds=1.0),
        share=share,
    )


GOOD = compared((5.0, 3.0), (2.0, 1.9), 0.5)
BAD = compared((5.0, 6.0), (2.0, 2.1), None)


def test_the_verdict_of_a_gain() -> None:
    assert verdict_of([GOOD, GOOD], ledger(50, 125, 1)) == (
        "2 of 2 composed models reach their baseline's loss. All work, searches included: 50 s composed, 125 s "
        "baselines, 2.5x less. Composing pays from 1 configuration on; here there are 2. "
        "Just composed, 2 of 2 are better than just pruned."
    )


def test_the_verdict_of_a_loss_says_so() -> None:
    text = verdict_of([GOOD, BAD], ledger(125, 50, None))
    assert "Just composed, 1 of 2 are better than just pruned" in text
    assert text.startswith("1 of 2 composed models reach their baseline's loss. The other does not, even with as many")
    assert "the work of the two sides is not compared" in text
    assert "less" not in text
    assert "pays" not in text


def test_more_work_is_called_more_work() -> None:
    text = verdict_of([GOOD], ledger(125, 50, 7))
    assert "125 s composed, 50 s baselines, 2.5x more" in text
    assert "pays from 7 configurations on; here there are 1" in text


def test_equal_starts_are_not_below() -> None:
    text = verdict_of([compared((5.0, 5.0), (2.0, 2.0), 1.0)], ledger(50, 50, 1))
    assert "Just composed, 0 of 1 are better than just pruned" in text
    assert "1 of 1 composed models reach" in text


def test_models_that_need_no_training_are_counted() -> None:
    free = compared((5.0, 2.0), (2.0, 2.0), 0.0)
    assert verdict_of([free, GOOD], ledger(50, 125, 1)).startswith(
        "2 of 2 composed models reach their baseline's loss, 1 of them without any training of their own. "
    )
    assert "loss, all of them without any training" in verdict_of([free, free], ledger(50, 125, None))
    assert "does not pay at these settings" in verdict_of([free], ledger(125, 50, None))


def test_the_verdict_of_an_incomplete_table() -> None:
    assert "Not everything is trained yet" in verdict_of([Row(configuration=0)], {"rows": []})
