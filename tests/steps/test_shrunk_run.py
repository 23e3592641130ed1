"""`compose run` with ``shrink: true``: from rates to small models, measured and timed beside the base model."""

from __future__ import annotations

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
from composer.recipe import ModelOptions, TimeOptions
from composer.scheme.configurations import Assignment, Spec
from composer.shrinking import verify
from composer.shrinking.verify import answers, compared
from composer.steps import shrunk_models
from composer.steps.run import plan, run, with_best


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
    again = run(work)
    assert again.summary["shrunk"][1:] == [first, second]


def test_wishes_become_a_family_of_small_models_without_baselines(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        verify, "verify", lambda masked, small: compared(*(answers(BaseModel(one).load()) for one in (masked, small)))
    )
    rates = recipe(distilbert_folder, classification_data, tmp_path / "work")
    with pytest.raises(RecipeError, match="attention: not together with wishes"):
        run(rates.model_copy(update={"keep_macs": [0.5]}))
    given: dict[str, Any] = {name: getattr(rates, name) for name in ("model", "data", "folder", "finetune")}
    given |= {"keep-macs": [0.6, 0.3], "calibration_size": 16, "valid_size": 16}
    work = with_best(composer.Recipe(**given, time=TimeOptions(length=8, repeat=7)))
    outcome = run(work)
    base, first, second = outcome.summary["shrunk"]
    assert base["parameters"] > first["parameters"] > second["parameters"]
    assert [row["keep_macs"] for row in (one["wish"] for one in read_json(work.folder / "choice.json")["choices"])] == [
        0.6,
        0.3,
    ]
    assert not list((work.folder / "models").glob("baseline*"))
    assert (work.folder / "family.png").read_bytes().startswith(b"\x89PNG")
    said = list(whole_run(outcome))
    assert re.fullmatch(
        r"From \S+ \(.* MB with accuracy [\d.]+\) came 2 smaller models: .* models: .*-shrunk", said[-1]
    )
    assert len(said) == 4  # models, what the figures are, where the rest lies; no table of what was not compared
    assert [step["step"] for step in plan(work)][:1] == ["choose"]


def test_single_weights_are_chosen_and_all_models_have_as_few_parameters_as_was_wished(
    distilbert_folder: Path, classification_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dear(_: Candidates, assigned: Assignment, __: Any) -> dict[str, float]:
        """Units are dear, weights are not."""
        units = [path for path, said in assigned.items() if _units_go(path, said)]
        return {"loss": 1.0 + len(units), "accuracy": 1.0}

    monkeypatch.setattr(Candidates, "loss", dear)
    given = {"model": str(distilbert_folder), "data": str(classification_data), "folder": tmp_path / "work"}
    quick = {"calibration_size": 16, "valid_size": 16, "time": TimeOptions(length=8, repeat=7), "unstructured": True}
    with pytest.raises(RecipeError, match="unstructured: says what may go for a wish, and nothing is wished"):
        run(composer.Recipe(**given, **quick))
    finetune = ModelOptions(steps=2, batch_size=4, evaluations=1)
    work = with_best(composer.Recipe(**given, **quick, keep_parameters=[0.95, 0.9], finetune=finetune))
    outcome = run(work)
    rows, told = outcome.summary["shrunk"], read_json(work.folder / "choice.json")["choices"]
    for row, choice, wished in zip(rows[1:], told, (0.95, 0.9), strict=True):
        assert choice["taken"] == "single weights"
        assert set(choice["weights"].values()) & set(RATES)
        assert row["not_zero"] / rows[0]["not_zero"] == pytest.approx(choice["left"]["parameters"], abs=0.02)
        assert choice["left"]["parameters"] <= wished
        assert Path(row["model"]).name in ("0", "1")
    assert (work.folder / "family.png").read_bytes().startswith(b"\x89PNG")


def _units_go(path: str, said: float | Spec) -> bool:
    shape = said.granularity if isinstance(said, Spec) else None
    return shape == "neuron" or (path.endswith("attention") and shape is None)
