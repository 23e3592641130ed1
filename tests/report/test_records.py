"""The records of a comparison: the file's shape key for key, and lenient reading of what is old or incomplete."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from composer.report.records import Budget, Comparison, Dense, Measured, PrunedRun, Row

RUN = {
    "loss": 2.5,
    "first_loss": 4.0,
    "metric": 31.0,
    "metrics": {"bleu": 31.0, "chrf": 55.0},
    "steps": 4,
    "seconds": 1.5,
    "compose_seconds": 0.25,
    "learning_rate": 0.01,
    "curve": [[0.0, 4.0], [1.5, 2.5]],
}
SPENT = {"seconds": 3.0, "steps": 8.0}
FILE: dict[str, Any] = {
    "metric": "bleu",
    "rows": [
        {
            "configuration": 0,
            "sparsity": 0.3,
            "pruned": {"loss": 4.0},
            "composed": {"loss": 3.0},
            "baseline": RUN,
            "finetuned": RUN,
            "budgets": [
                {"share": 0.5, "steps": 2, "loss": 2.5, "reached": True, "seconds": 0.75, "curve": [[0.0, 3.0]]}
            ],
            "share": 0.5,
        },
        {
            "configuration": 1,
            "sparsity": 0.4,
            "pruned": {"loss": None},
            "composed": {"loss": None},
            "baseline": None,
            "finetuned": None,
            "budgets": [],
            "share": None,
        },
    ],
    "dense": {
        "untouched": {"metric": 35.0, "metrics": {"bleu": 35.0}, "loss": 1.5},
        "finetuned": {key: value for key, value in RUN.items() if key != "first_loss"},
    },
    "search": {
        "configuration": 1,
        "finished": 0,
        "joint": [{"learning_rate": 0.01, "loss": 2.75, "seconds": 0.5, "steps": 1}],
        "chosen": {"baseline": 0.01, "composed": 0.001},
        "baseline": [{"learning_rate": 0.01, "loss": 2.5, "seconds": 1.5, "steps": 4}],
        "composed": [],
    },
    "sharing": [{"level": "module", "blocks": 2, "uses": 3, "saved": 0.25}],
    "ledger": {
        "step_seconds": 0.375,
        "rows": [{"work": "prune", "side": "both", "seconds": 1.0, "trained": None, "of": 2, "steps": 2.5}],
        "baseline": SPENT,
        "composed": SPENT,
        "growth": [{"configurations": 1, "blocks": 0.5, "baseline": SPENT, "composed": SPENT}],
        "lines": [{"configurations": 1, "baseline": [{**SPENT, "loss": 2.5}], "composed": [{**SPENT, "loss": 2.25}]}],
        "pays_from": 1,
        "here": 2,
        "masks": {"criterion": "obs", "same": True},
    },
    "verdict": "Composed models win.",
    "no_targets": {"weights": 20, "reasons": {"embeddings": 8}},
    "provenance": {"seed": 0, "recipe": {"steps": 4}},
}


def test_a_file_comes_back_key_for_key() -> None:
    assert Comparison.read(FILE).plain() == FILE
    assert json.loads(json.dumps(Comparison.read(FILE).plain())) == FILE


def test_the_dense_run_is_written_without_the_loss_that_stands_with_the_untouched_model() -> None:
    dense = Dense(untouched=Measured(loss=4.0), finetuned=PrunedRun(loss=2.0, steps=1, seconds=1.0, first_loss=4.0))
    assert "first_loss" not in dense.plain()["finetuned"]


def test_a_run_that_lacks_a_figure_it_needs_is_not_known() -> None:
    row = Row.model_validate({"configuration": 0, "baseline": {"loss": 1.0, "steps": 3}, "finetuned": RUN})
    assert row.baseline is None
    assert row.finetuned is not None
    assert row.finetuned.seconds == 1.5


def test_items_that_cannot_be_read_are_left_out_and_the_others_stay() -> None:
    budget = {"share": 0.5, "steps": 2, "loss": 2.5, "reached": True, "seconds": 0.75}
    row = Row.model_validate({"configuration": 0, "budgets": [{}, budget, None]})
    assert [kept.share for kept in row.budgets] == [0.5]


def test_a_file_from_before_there_were_curves_growth_and_masks_is_read() -> None:
    old = json.loads(json.dumps(FILE))
    for key in ("growth", "lines", "masks", "here"):
        del old["ledger"][key]
    for key in ("trained", "of"):
        del old["ledger"]["rows"][0][key]
    for part in (old["rows"][0]["baseline"], old["rows"][0]["budgets"][0], old["dense"]["finetuned"]):
        del part["curve"]
    table = Comparison.read(old)
    assert [entry.work for entry in table.ledger.rows] == ["prune"]
    assert table.ledger.growth == ()
    assert table.rows[0].baseline is not None
    assert table.rows[0].baseline.curve == ()


def test_keys_of_a_later_version_do_no_harm() -> None:
    assert Comparison.read(FILE | {"invented": 1}).plain() == FILE


def test_a_record_made_from_python_needs_all_its_figures_and_stays_as_it_is() -> None:
    with pytest.raises(ValidationError, match="seconds"):
        Budget(share=0.5, steps=2, loss=2.5, reached=True)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        Row(configuration=0).share = 0.5  # type: ignore[misc]
