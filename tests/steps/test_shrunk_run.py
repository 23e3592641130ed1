"""`compose run` with ``shrink: true``: from rates to small models, measured and timed beside the base model."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.choosing.widths import RATES
from composer.cli.compared import whole_run
from composer.composing.candidates import Candidates
from composer.errors import RecipeError
from composer.files.jsonfile import read_json
from composer.models.folder import BaseModel
from composer.recipe import TimeOptions
from composer.scheme.configurations import Assignment, Spec
from composer.shrinking import verify
from composer.shrinking.verify import answers, compared
from composer.steps import shrunk_models
from composer.steps.run import plan, run, with_best
from composer.timing.parts import PartTimer


def recipe(model: Path, data: Path, folder: Path) -> composer.Recipe:
    given: dict[str, Any] = {"model": str(model), "data": str(data), "folder": str(folder)}
    given |= {"structured": True, "attention": [0.25, 0.5], "linear": [0.5, 0.5], "shrink": True, "budgets": [1.0]}
    given |= {"finetune": {"steps": 2, "batch_size": 4, "evaluations": 1, "learning_rate": 1e-3}}
    return with_best(composer.load_recipe(given=given, file=False))


def test_rates_become_small_models_with_their_metric_speed_and_size(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(masked: Path, small: Path) -> verify.Verification:
        return compared(answers(BaseModel(masked).load()), answers(BaseModel(small).load()))

    monkeypatch.setattr(verify, "verify", here)
    for name, value in (("LENGTH", 8), ("BATCH_SIZES", (1,)), ("ROUNDS", 7)):
        monkeypatch.setattr(shrunk_models, name, value)
    work = recipe(distilbert_folder, classification_data, tmp_path / "work")
    base, first, second = run(work).summary["shrunk"]
    assert [row["configuration"] for row in (base, first, second)] == [None, 0, 1]
    assert base["parameters"] > first["parameters"] > second["parameters"]
    assert base["bytes"] > first["bytes"] > second["bytes"]
    for i, row in enumerate((base, first, second)):
        (cell,) = row["faster"]
        assert (cell["batch_size"], cell["seconds"] > 0, cell["value"] > 0) == (1, True, True)
        assert row["metrics"].keys() == {"accuracy", "f1"}
        assert (cell["macs"] > 1.2) if i else cell["macs"] is None
    assert BaseModel(second["model"]).config["shrunk"]
    card = (Path(second["model"]) / "README.md").read_text("utf-8")
    assert "against" in card
    assert "| accuracy |" in card
    speed = read_json(tmp_path / "work" / "results" / "speed.json")
    assert [entry["bytes"] for entry in speed["entries"]] == [row["bytes"] for row in (base, first, second)]
    assert plan(work)[-1]["step"] == "shrink"
    assert plan(work)[-1]["done"]
    page = (tmp_path / "work" / "report.html").read_text("utf-8")
    assert page.index("The small models") < page.index('id="results"')  # both: baselines were trained
    again = run(work)
    assert again.summary["shrunk"][1:] == [first, second]
    assert not again.fresh


def test_wishes_become_a_family_of_small_models_without_baselines_and_single_weights_may_go_too(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where little is to go only single weights go, and the model stays as large; else it shrinks.

    Losses are made up: half of the weights go for nothing, a sublayer that goes whole is dear.
    """
    monkeypatch.setattr(
        verify, "verify", lambda masked, small: compared(*(answers(BaseModel(one).load()) for one in (masked, small)))
    )

    def loss(_: Candidates, assigned: Assignment, __: Any) -> dict[str, float]:
        weights = [said.rate for path, said in assigned.items() if not _units_go(path, said)]
        units = [9.0 if said.rate == 1 else said.rate for path, said in assigned.items() if _units_go(path, said)]
        return {"loss": 1.0 + sum(units) + sum(max(0.0, 10 * rate - 5) for rate in weights), "accuracy": 1.0}

    monkeypatch.setattr(Candidates, "loss", loss)
    monkeypatch.setattr(PartTimer, "measure", lambda _, models, *__: [[1.0] * 7 for _ in models])  # none is about time
    rates = recipe(distilbert_folder, classification_data, tmp_path / "work")
    with pytest.raises(RecipeError, match="attention: not together with wishes"):
        run(rates.model_copy(update={"keep_macs": [0.5]}))
    with pytest.raises(RecipeError, match="unstructured: says what may go for a wish, and nothing is wished"):
        run(rates.model_copy(update={"unstructured": True}))
    given: dict[str, Any] = {name: getattr(rates, name) for name in ("model", "data", "folder", "finetune")}
    given |= {"keep-parameters": [0.95, 0.7], "unstructured": True, "calibration_size": 16, "valid_size": 16}
    work = with_best(composer.Recipe(**given, time=TimeOptions(length=8, repeat=7)))
    outcome = run(work)
    base, *made = outcome.summary["shrunk"]
    assert [Path(row["model"]).name for row in made] == ["0", "1-shrunk"]
    assert base["parameters"] == made[0]["parameters"] > made[1]["parameters"]
    choice = read_json(work.folder / "choice.json")
    told, units = choice["choices"], choice["units"]
    assert [row["wish"]["keep_parameters"] for row in told] == [0.95, 0.7]
    for row, one in zip(made, told, strict=True):
        assert row["not_zero"] / base["not_zero"] == pytest.approx(one["left"]["parameters"], abs=0.02)
        assert one["left"]["parameters"] <= one["wish"]["keep_parameters"]
        assert {*one["weights"].values()} <= {*RATES}
    assert [bool(one["weights"]) for one in told] == [one["kept"] == units for one in told] == [True, False]
    assert not list((work.folder / "models").glob("baseline*"))
    page = (work.folder / "report.html").read_text("utf-8")
    assert "<h1>A family of small models</h1>" in page
    assert "--keep-parameters 0.95" in page
    assert f"{made[1]['faster'][0]['value']:.2f}x" in page
    assert 'id="results"' not in page  # nothing was compared
    assert (work.folder / "family.png").read_bytes().startswith(b"\x89PNG")
    said = list(whole_run(outcome))
    assert re.fullmatch(
        r"From \S+ \(.* million parameters with accuracy [\d.]+\) came 2 models: .* models: \S+/0, \S+-shrunk", said[-1]
    )
    small = [{k: v for k, v in row.items() if k != "not_zero"} for row in (base, made[1], made[1])]
    *_, last = whole_run(dataclasses.replace(outcome, summary={**outcome.summary, "shrunk": small}))
    assert re.fullmatch(
        r"From \S+ \(.* MB with accuracy [\d.]+\) came 2 smaller models: .* models: \S+/\*-shrunk", str(last)
    )
    assert len(said) == 4  # models, what the figures are, where the rest lies; no table of what was not compared
    assert [step["step"] for step in plan(work)][:1] == ["choose"]


def _units_go(path: str, said: float | Spec) -> bool:
    shape = said.granularity if isinstance(said, Spec) else None
    return shape == "neuron" or (path.endswith("attention") and shape is None)
