"""The calibration study: every set on every domain, marked only where the difference is real, kept and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.assess.assess import assess
from composer.assess.measure.assessed_model import AssessedModel
from composer.assess.pages.page import write_page
from composer.assess.settings import Asked, Settings
from composer.assess.study import questions
from composer.assess.study.best import cells
from composer.assess.study.curves import assess_suite_curves
from composer.assess.study.pruned import read_masks
from composer.assess.study.rates import series
from composer.assess.study.study import assess_study
from composer.errors import ConfigError, DataError, OutputError, RecipeError
from composer.evaluation.suites.suite import SuiteOptions
from composer.recipe import Recipe
from tests.conftest import Folder

WORDS = ["the", "man", "sees", "a", "dog", "and", "boy", "likes", "red", "cat", "old", "film", "ends", "well", "again"]


def _lines(count: int, start: int) -> str:
    return "\n".join(" ".join(WORDS[(i * 3 + j + start) % len(WORDS)] for j in range(9)) for i in range(count)) + "\n"


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    """A text, and sums with their answers."""
    (tmp_path / "a.txt").write_text(_lines(40, 0))
    rows = [{"question": line, "answer": "#### 4"} for line in _lines(40, 5).splitlines()]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(tmp_path / name) for name in ("a.txt", "b.jsonl")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Texts of the suites."""
    (tmp_path / "data" / "text").mkdir(parents=True)
    (tmp_path / "data" / "text" / "test.txt").write_text(_lines(60, 2))
    return tmp_path / "data"


def _subject(model: Path, folder: Path, data: Path, sets: list[str], **more: Any) -> AssessedModel:
    recipe = Recipe(model=str(model), calibration_size=8, max_source_length=16, device="cpu")
    given = {"parts": ("calibration",), "calibrations": tuple(sets), "criteria": ("wanda",), "repair": False}
    options = SuiteOptions(data=data, window=16, limit=8)
    settings = Settings(**{**given, "asked": Asked(("language",)), "suite_options": options, **more})
    return AssessedModel(recipe, settings, folder)


def test_each_set_prunes_once_and_is_measured_on_every_task(
    model_folder: Folder, tmp_path: Path, data: Path, sets: list[str]
) -> None:
    given = {"granularities": ("unstructured", "2:4"), "matrix_rates": (0.5, 0.75)}
    subject = _subject(model_folder("llama"), tmp_path / "out", data, sets, **given)
    before = {name: value.clone() for name, value in subject.parameters.items()}
    told = assess_study(subject)
    ways = [(m["criterion"], m["granularity"], m["rate"]) for m in told["matrices"]]
    assert ways == [("wanda", "unstructured", 0.5), ("wanda", "unstructured", 0.75), ("wanda", "2:4", 0.5)]
    assert [s["name"] for s in told["sets"]] == ["a", "b"]
    for matrix in told["matrices"]:
        assert matrix["sparsity"] == pytest.approx(matrix["rate"], abs=0.02)
        assert [(c["calibration"], c["task"]) for c in matrix["cells"]] == [("a", "text"), ("b", "text")]
    assert all(torch.equal(before[name], value) for name, value in subject.parameters.items())
    _overlap_is_that_of_the_masks(told, tmp_path / "out" / "study")
    again = _subject(model_folder("llama"), tmp_path / "out", data, sets, **given)
    assert assess_study(again)["matrices"] == told["matrices"]
    assert "model" not in vars(again), "nothing had to be measured again"
    page = write_page(tmp_path / "out", pictures=False).read_text(encoding="utf-8")
    assert "Calibration study" in page
    assert "--calibration" in page
    lines = series(told, "text")
    assert [rate for rate, _ in lines["wanda", "unstructured", "a"]] == [0.5, 0.75]
    assert [rate for rate, _ in lines["wanda", "2:4", "b"]] == [0.5]
    assert "study-rates-figure" in page


def _overlap_is_that_of_the_masks(told: Any, folder: Path) -> None:
    """Counted anew from the bits, weight by weight."""
    first, second = (read_masks(folder / name / "wanda-2-of-4-0.5" / "masks.safetensors") for name in "ab")
    both = either = 0
    for target, bits in first.items():
        for x, y in zip(bits.tolist(), second[target].tolist(), strict=True):
            both, either = both + (x & y).bit_count(), either + (x | y).bit_count()
    (pair,) = told["matrices"][2]["overlaps"]
    assert pair["jaccard"] == both / either
    assert sum(layer["both"] for layer in pair["layers"]) == both


def test_a_translator_is_calibrated_on_text_with_its_own_answers(
    t5_folder: Path, translation_data: Path, tmp_path: Path, sets: list[str]
) -> None:
    (tmp_path / "data" / "multi30k").mkdir(parents=True)
    for language in ("en", "de"):
        lines = "".join(f"{line}\n" for line in _lines(6, len(language)).splitlines())
        (tmp_path / "data" / "multi30k" / f"test.{language}").write_text(lines)
    recipe = Recipe(model=str(t5_folder), data=str(translation_data), calibration_size=4, max_target_length=4)
    options = SuiteOptions(data=tmp_path / "data", limit=4)
    given = {"calibrations": (sets[0],), "parts": ("calibration",), "asked": Asked((), ("multi30k",))}
    settings = Settings(**given, suite_options=options, matrix_rates=(0.5,), repair=False)
    told = assess_study(AssessedModel(recipe, settings, tmp_path / "out"))
    assert [(s["name"], s["read_as"]) for s in told["sets"]] == [
        (translation_data.name, "examples of translation"),
        ("a", "sentences, with the base model's own answers"),
    ]


def test_best_is_marked_only_where_every_other_set_is_really_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    from composer.assess.study import best
    from composer.evaluation.uncertainty import Difference

    values = {"a": 10.0, "b": 11.0, "c": 10.1}
    ps = {"b": 0.001, "c": 0.2}

    class _Job:
        def __init__(self, name: str) -> None:
            self.name = name

        def result(self) -> dict[str, Any]:
            names = dict.fromkeys(("error", "low", "high"), 1.0)
            return {"measures": [{"name": "perplexity", "value": values[self.name], **names}]}

    def compared(one: Any, other: Any) -> Difference:
        return Difference(values[one.name] - values[other.name], 0.0, 1.0, ps[one.name], "", 9)

    monkeypatch.setattr(best, "compared", compared)
    jobs: Any = {name: {"text": _Job(name)} for name in values}
    task: Any = {"task": "text", "measure": "perplexity", "dense": 8.0, "chance": 100.0}
    found = {cell["calibration"]: cell for cell in cells(jobs, [task])}
    assert [found[name]["best"] for name in "abc"] == [False, False, False]
    assert [found[name]["as_good"] for name in "abc"] == [True, False, True]
    ps["c"] = 0.03
    found = {cell["calibration"]: cell for cell in cells(jobs, [task])}
    assert [found[name]["best"] for name in "abc"] == [True, False, False]
    assert found["c"]["against_best"]["adjusted_p"] == pytest.approx(0.03)


def test_what_is_wrong_with_a_study_is_said_before_anything_is_measured(
    model_folder: Folder, tmp_path: Path, data: Path, sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "run", lambda *_: pytest.fail("was measured"))
    llama, out = model_folder("llama"), tmp_path / "out"
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"question": "how many", "choices": ["a", "b"], "answer": 2}\n')
    with pytest.raises(DataError, match=r"wrong\.jsonl:1: read as question, choices, answer: .*2; allowed: 0 to 1"):
        assess_study(_subject(llama, out, data, [*sets, str(wrong)]))
    with pytest.raises(ConfigError, match=r"--criteria: l1 does not look at data, and --no-repair"):
        assess_study(_subject(llama, out, data, sets, criteria=("l1",)))
    with pytest.raises(RecipeError, match=r"--suite: squad: .*needed: a head for question answering"):
        assess_study(_subject(llama, out, data, sets, asked=Asked(("squad",))))
    with pytest.raises(ConfigError, match="--evaluation: not together with --suite"):
        _subject(llama, out, data, sets, evaluations=("x",))
    assert not (out / "study.json").exists()


def test_curves_of_suites_stand_beside_another_model_s(model_folder: Folder, tmp_path: Path, data: Path) -> None:
    """Without data, by a criterion that looks at none."""
    given = {"parts": ("curves",), "calibrations": (), "criteria": ("l1",), "granularities": ("unstructured", "2:4")}
    gpt2 = _subject(model_folder("gpt2"), tmp_path / "gpt2", data, [], **{**given, "rates": (0.5,)})
    assess_suite_curves(gpt2)
    given |= {"rates": (0.5, 1.0), "beside": (str(tmp_path / "gpt2"),)}
    subject = _subject(model_folder("llama"), tmp_path / "out", data, [], **given)
    before = {name: value.clone() for name, value in subject.parameters.items()}
    told = assess_suite_curves(subject)
    assert [model["name"] for model in told["models"]] == ["llama", "gpt2"]
    own = told["models"][0]
    at = [(p["granularity"], p["rate"], p["sparsity"]) for p in own["points"]]
    assert [(a, b) for a, b, _ in at] == [("unstructured", 0.5), ("unstructured", 1.0), ("2:4", 0.5)]
    assert [share for *_, share in at] == pytest.approx([0.5, 1.0, 0.5], abs=0.02)
    assert all(torch.equal(before[name], value) for name, value in subject.parameters.items())
    dense = own["tasks"][0]["dense"]
    for point in own["points"]:
        (cell,) = point["cells"]
        assert cell["low"] <= cell["value"] <= cell["high"]
        assert cell["against_dense"]["value"] == pytest.approx(cell["value"] - dense)
    again = _subject(model_folder("llama"), tmp_path / "out", data, [], **given)
    assert assess_suite_curves(again)["models"] == told["models"]
    assert "model" not in vars(again), "nothing had to be measured again"
    page = write_page(tmp_path / "out", pictures=False).read_text(encoding="utf-8")
    assert "suite-curves-figure" in page
    assert "Masks bring no speed" in page
    with pytest.raises(OutputError, match=r"--beside: .*no such file; needed: the folder of another assessment"):
        assess_suite_curves(_subject(model_folder("llama"), tmp_path / "out", data, [], **{**given, "beside": ("x",)}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"parts": ("curves", "runtime"), "criteria": ("l1",)}, "--data: nothing given; runtime among --parts looks"),
        ({"parts": ("curves",), "criteria": ("l1", "wanda")}, "--data: nothing given; the curves' wanda look at"),
        ({"parts": ("curves",), "criteria": ("l1",), "repair": True}, "the curves' repair look at a training sample"),
    ],
)
def test_parts_that_look_at_data_are_refused_without_it(
    model_folder: Folder, tmp_path: Path, data: Path, given: dict[str, Any], said: str
) -> None:
    subject = _subject(model_folder("llama"), tmp_path / "out", data, [], **given, calibrations=())
    with pytest.raises(ConfigError, match=said):
        assess(subject.space.recipe, subject.settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
