"""What was measured, in the cards of the models that it was measured of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from composer.composing.card import Making, model_card
from composer.evaluation.uncertainty import wilson
from composer.files.jsonfile import write_json
from composer.models.folder import BaseModel
from composer.recipe import Recipe
from composer.steps.card import refresh_card
from composer.workspace import Workspace


def result_of(fingerprint: str, accuracy: float) -> dict[str, Any]:
    inputs = {"model": fingerprint, "data": "d", "task": "classification"}
    result: dict[str, Any] = {
        "split": "test",
        "source": "sst2",
        "examples": 400,
        "loss": 0.3,
        "metrics": {"accuracy": accuracy},
    }
    result["intervals"] = {"accuracy": wilson(accuracy, 400)}
    return {"inputs": inputs, "result": result}


def test_metrics_stand_beside_those_of_the_base_model_with_an_interval(bert_folder: Path, tmp_path: Path) -> None:
    space, base = Workspace(Recipe(folder=tmp_path)), BaseModel(bert_folder)
    (tmp_path / "m").mkdir()
    base.save(base.load(), tmp_path / "m")
    model = BaseModel(tmp_path / "m")
    card = model_card(Making(base, "made"), None, 0.0)
    (model.folder / "README.md").write_text(card)
    write_json(model.folder / "composer.json", {"inputs": {"base": "b" * 64}})
    assert not refresh_card(space, model)  # nothing was measured

    write_json(tmp_path / "results" / "m.json", result_of(model.fingerprint, 0.9))
    write_json(tmp_path / "results" / "base.json", result_of("b" * 64, 0.95))
    write_json(tmp_path / "results" / "comparison.json", {"rows": []})
    assert refresh_card(space, model)
    read = ModelCard.load(model.folder / "README.md")
    assert "| accuracy | 0.900 (95 %: 0.867 to 0.926) | 0.950 (95 %: 0.924 to 0.967) |" in read.text
    assert read.data.eval_results[0].metric_value == 0.9
    assert not refresh_card(space, model)  # it says so already


def test_a_card_of_somebody_else_stays(bert_folder: Path, tmp_path: Path) -> None:
    assert not refresh_card(Workspace(Recipe(folder=tmp_path)), BaseModel(bert_folder))
