"""`compose plan`: flags reach the forecast, and what it says is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from composer.recipe import Recipe

from .conftest import Compose

FORECAST = "composer.forecast.forecast.forecast"
BLOCKS = {"library": "finetuned", "level": "module", "needed": 60, "uses": 90, "units": 9, "saved": 1 / 3}
PIECES = {"gather": 1, "solve": 40, "file": 60, "byte": 1e6}
TOLD: dict[str, Any] = {
    "folder": "t5",
    "configurations": 3,
    "criterion": "obs",
    "trainer": "least_squares",
    "by_block": False,
    "blocks": [{**BLOCKS, "stored": 20, "to_do": 40, "bytes": 4_000_000}],
    "disk": {"blocks": 4_000_000, "scores": 0, "shared": 0, "models": 96_000_000, "total": 100_000_000},
    "memory": {"model": 1, "prune": 20_000_000, "blocks": 300_000_000, "finetune": 80_000_000, "peak": 300_000_000},
    "steps": 120,
    "share": {"value": 0.25, "from": "assumed"},
    "length": "Joint tuning: 450 steps.",
    "work": [{"work": "block-level", "side": "composed", "pieces": PIECES, "to_do": PIECES, "seconds": None}],
    "verdict": None,
}
TIMED = {
    **TOLD,
    "work": [{**TOLD["work"][0], "seconds": (20.0, 30.0, 45.0), "seconds_to_do": (10.0, 12.0, 18.0)}],
    "seconds": {"baseline": 400.0, "composed": 130.0},
    "verdict": {"text": "composing pays from 2 configurations on; here there are 3", "pays_from": 2},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, dict[str, Any]]]:
    """What the forecast was asked, which is replaced."""
    calls: list[tuple[Recipe, dict[str, Any]]] = []

    def forecast(recipe: Recipe, **options: Any) -> dict[str, Any]:
        options.pop("progress")
        calls.append((recipe, options))
        return TIMED if options["time"] else TOLD

    monkeypatch.setattr(FORECAST, forecast)
    return calls


def test_flags_make_the_recipe(asked: list[tuple[Recipe, dict[str, Any]]], compose: Compose) -> None:
    Path("compose.yaml").write_text("seed: 3\nlinear: [0.9]\n")
    words = "plan -m base --criterion obs --trainer distill --attention 0.5 --steps 7 --block-steps 8 --data demo"
    result = compose(*words.split(), "--block-levels", "module,layer", "--sweep", "--time", "--share", "0.5")
    assert (result.status, result.err) == (0, "")
    ((recipe, options),) = asked
    assert options == {"time": True, "share": 0.5}
    expected = {"model": "base", "criterion": "obs", "trainer": "distill", "attention": [0.5], "linear": [0.9]}
    expected |= {"block_levels": ["module", "layer"], "sweep": True, "seed": 3, "data": "demo"}
    assert recipe == Recipe(**expected, finetune={"steps": 7}, block={"steps": 8})


def test_a_recipe_is_planned_for_as_run_would_take_it(
    asked: list[tuple[Recipe, dict[str, Any]]], compose: Compose
) -> None:
    Path("t5.yaml").write_text("seed: 2\n")
    Path("own.yaml").write_text("folder: here\n")
    for words in (["plan"], ["plan", "t5.yaml"], ["plan", "t5.yaml", "-o", "x"], ["plan", "own.yaml"]):
        assert compose(*words).status == 0
    assert [str(recipe.folder) for recipe, _ in asked] == [".", "t5", "x", "here"]
    assert asked[0][1] == {"time": False, "share": None}


def test_a_recipe_gets_the_defaults_of_run_and_classic_those_of_the_original(
    asked: list[tuple[Recipe, dict[str, Any]]], compose: Compose
) -> None:
    Path("t5.yaml").write_text("seed: 2\n")
    Path("own.yaml").write_text("criterion: wanda\n")
    for words in (["plan", "t5.yaml"], ["plan", "own.yaml"], ["plan", "t5.yaml", "--classic"]):
        assert compose(*words).status == 0
    assert [(recipe.criterion, recipe.dead_columns) for recipe, _ in asked] == [
        ("obs", True),
        ("wanda", True),
        ("l1", False),
    ]
    assert asked[2][0].trainer == "distill"


@pytest.mark.usefixtures("asked")
def test_what_is_shown(compose: Compose) -> None:
    said = " ".join(compose("plan").out.split())
    assert "Blocks for 3 configurations in t5" in said
    assert "finetuned module 60 90 33.3 % 20 40 4.0 MB" in said
    assert "block-level composed 1 calibration pass, 40 solves" in said
    assert "disk: 100 MB to write (4.0 MB of blocks, 96 MB of models)" in said
    assert "memory: 300 MB at the peak (prune 20 MB, blocks 300 MB, finetune 80 MB)" in said
    assert "share 1/4 (assumed)" in said
    assert "Joint tuning: 450 steps." in said
    assert said.endswith("--time predicts seconds, and from how many configurations on composing pays")


def test_a_trainer_that_says_nothing_of_its_work_is_named(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FORECAST, lambda *_, **__: {**TOLD, "trainer": "toy", "by_block": True})
    said = " ".join(compose("plan").out.split())
    assert "block trainer toy (which says nothing of its work: counted and timed block by block" in said


@pytest.mark.usefixtures("asked")
def test_seconds_and_the_verdict(compose: Compose) -> None:
    said = " ".join(compose("plan", "--time").out.split())
    assert "30 s 20 s – 45 s 12 s" in said
    assert "in all baseline 6 min 40 s" in said
    assert said.endswith("composing pays from 2 configurations on; here there are 3")
    told = json.loads(compose("plan", "--time", "--json").out)
    assert told["work"][0]["seconds"] == [20, 30, 45]


def test_a_model_and_rates_are_enough(compose: Compose, t5_folder: Path) -> None:
    result = compose("plan", "-m", str(t5_folder), "--attention", "0.25", "--linear", "0.3", "0.5")
    assert (result.status, result.err) == (0, "")
    assert "Blocks for 2 configurations in ." in result.out
    assert result.out.rstrip().endswith("composing pays; name --data (or --steps) to count steps of whole models")
    assert [*Path().iterdir()] == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--share", "2"], "--share: got 2; allowed: 0 to 1"),
        (["--trainer", "magic"], "unknown trainer 'magic'; allowed: distill"),
        (["--criterion", "magic"], "unknown criterion 'magic'; allowed: l1"),
        (["--time"], "--data: nothing given"),
        (["-c", "x.json", "--linear", "0.5"], "--linear: not together with -c/--config"),
    ],
)
def test_what_cannot_be_planned(words: list[str], problem: str, compose: Compose, t5_folder: Path) -> None:
    result = compose("plan", "-m", str(t5_folder), *words)
    assert (result.status, result.out) == (2, "")
    assert problem in result.err
