"""SQuAD: the same figures as the task of that name has, whole and by whether there is an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import composer
from composer.errors import RecipeError
from tests.conftest import Folder

from .conftest import Evaluate

CONTEXT = "the old man sees a small dog and the boy likes a red cat"


def article(*questions: tuple[str, str | None]) -> str:
    asked = [
        {
            "question": question,
            "id": str(i),
            "is_impossible": answer is None,
            "answers": [{"text": answer, "answer_start": CONTEXT.index(answer)}] if answer else [],
        }
        for i, (question, answer) in enumerate(questions)
    ]
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": asked}]}]})


@pytest.mark.parametrize("name", ["squad-v2", "squad-v1"])
def test_figures_are_those_of_the_task(
    name: str, evaluate: Evaluate, data: Path, model_folder: Folder, tmp_path: Path
) -> None:
    questions = [("the man", "old man"), ("a dog", None if name == "squad-v2" else "small dog"), ("a cat", "red cat")]
    folder, stem = ("squad_v2", "dev-v2.0") if name == "squad-v2" else ("squad", "dev-v1.1")
    (data / folder).mkdir()
    (data / folder / f"{stem}.json").write_text(article(*questions, *questions))
    model = model_folder("bert-answering")
    (row,) = evaluate(model, name, batch_size=4).summary["rows"]
    given = {"folder": str(tmp_path / "plain"), "data": str(data / folder), "test_split": stem, "device": "cpu"}
    (wanted,) = composer.evaluate(composer.load_recipe(given=given, file=False), [model]).summary["results"]
    for measure in row["cells"]["bert-answering"]:
        assert measure["value"] == pytest.approx(wanted["metrics"][measure["name"]])
    assert row["examples"] == 6
    assert len(row["cells"]["bert-answering"]) == (5 if name == "squad-v2" else 2)


def test_other_heads_are_refused(evaluate: Evaluate, t5_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"--suite: squad: .*; needed: a head for question answering"):
        evaluate(t5_folder, suite="squad")
