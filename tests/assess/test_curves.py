"""Curves and calibration matrices: what is asked for is there, counted exactly, and measured on the right data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from composer.assess.assess import assess
from composer.assess.measure.assessed_model import AssessedModel
from composer.assess.measure.calibrations import assess_calibrations
from composer.assess.measure.curves import assess_curves, speed_note
from composer.assess.pages.page import write_page
from composer.assess.settings import Settings
from composer.errors import ConfigError, DataError, OutputError
from composer.files.jsonfile import read_json
from composer.models.folder import BaseModel
from composer.recipe import Recipe
from composer.tasks.loss import mean_loss

from .conftest import MakeSubject


def test_curves_count_exactly_and_end_with_the_model_as_it_was(make_subject: MakeSubject) -> None:
    subject = make_subject(rates=(0.25, 0.5), criteria=("l1", "wanda"), granularities=("unstructured", "2:4", "row"))
    told = assess_curves(subject)
    # Wanda knows no rows; 2:4 is one rate.
    assert {(row["criterion"], row["granularity"], row["rate"]) for row in told["rows"]} == {
        *(("l1", shape, rate) for shape in ("unstructured", "row") for rate in (0.25, 0.5)),
        *(("wanda", "unstructured", rate) for rate in (0.25, 0.5)),
        *((criterion, "2:4", 0.5) for criterion in ("l1", "wanda")),
    }
    total = subject.layout.parameters(subject.paths)
    for row in told["rows"]:
        if row["granularity"] == "unstructured":
            removed = sum(subject.layout.target(path).removed_weights(row["rate"]) for path in subject.paths)
            assert row["removed_share"] == removed / total
        low, high = row["interval"]
        assert 0 <= low <= row["metric"] <= high <= 1
        assert high - low > 0.1, "few examples say little"
        assert row["seconds_per_example"] == pytest.approx(row["seconds"] / len(subject.scored))
    assert len(told["rows"]) == 2 * 8  # repaired and not
    after = mean_loss(subject.model, subject.space.task, subject.examples)
    assert told["dense"]["loss"] == pytest.approx(after, abs=1e-7)
    again = make_subject(rates=(0.25, 0.5), criteria=("l1", "wanda"), granularities=("unstructured", "2:4", "row"))
    assert assess_curves(again)["rows"] == told["rows"]
    assert "model" not in vars(again)


def test_neurons_take_their_second_projection_along(make_subject: MakeSubject) -> None:
    subject = make_subject(rates=(0.5,), criteria=("l1",), granularities=("neuron",), repair=False)
    (row,) = assess_curves(subject)["rows"]
    assert row["removed_share"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            [(1.0, 0.98), (2.0, 1.9), (1.0, 1.3)],
            "1 to 2 s dense, 0.98 to 1.9 s with masks; .* Masks bring no speed here",
        ),
        ([(1.0, 0.5), (0.5, 0.25)], "in the median 2.00 times as fast with masks. That is not what masks do"),
        ([], "^$"),
    ],
)
def test_what_is_said_of_speed(pairs: list[tuple[float, float]], said: str) -> None:
    assert re.search(said, speed_note(pairs, 32))


def test_calibration_sets_against_data(make_subject: MakeSubject, classification_data: Path, tmp_path: Path) -> None:
    lines = (classification_data / "train.tsv").read_text(encoding="utf-8").splitlines()
    part = tmp_path / "part.tsv"
    part.write_text("\n".join(lines[:7]) + "\n", encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    for name, rows in (("train", lines), ("validation", lines[:5])):
        (other / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = {"criteria": ("l1", "wanda"), "calibrations": (str(part),), "evaluations": (str(other),), "sparsity": 0.6}
    subject = make_subject(**given)
    told = assess_calibrations(subject)
    own = str(classification_data)
    losses = {(row["calibration"], row["task"]): row["loss_pruned"] for row in told["rows"]}
    assert list(losses) == [(c, t) for c in (own, str(part)) for t in (own, str(other))]
    assert told["criterion"] == "wanda"  # the first that looks at data
    assert losses[own, own] != losses[str(part), own]
    assert [row["examples"] for row in told["rows"]] == [8, 4, 8, 4]
    again = make_subject(**given)
    assert assess_calibrations(again)["rows"] == told["rows"]
    assert "model" not in vars(again)


def test_a_calibration_file_that_does_not_fit_is_named(make_subject: MakeSubject, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"something": "else"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"wrong\.jsonl"):
        assess_calibrations(make_subject(calibrations=(str(wrong),)))
    picture = tmp_path / "a.png"
    picture.write_bytes(b"")
    with pytest.raises(DataError, match=r"--calibration: .*a\.png: cannot be read; allowed: "):
        assess_calibrations(make_subject(calibrations=(str(picture),)))


def test_all_of_it_on_a_translation_model(
    t5_folder: Path, translation_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(model=str(t5_folder), data=str(translation_data), max_target_length=8)
    settings = Settings(rates=(0.5,), criteria=("l1",), heads=False, scored=4, sparsity=0.3)
    folder = tmp_path / "assessment"
    drawn: list[Path] = []  # once, at the end: drawing is slow
    with monkeypatch.context() as patched:
        patched.setattr("composer.assess.pages.page.write_page", lambda folder, **_: drawn.append(folder))
        for name, value in (("ROUNDS", 7), ("NEW_TOKENS", 2)):
            patched.setattr(f"composer.assess.measure.runtime.{name}", value)
        outcome = assess(recipe, settings, folder)
    assert drawn == 5 * [folder]
    write_page(folder, pictures=False)
    assert outcome.summary["parts"] == ["weights", "sensitivity", "curves", "runtime", "proposal"]
    for part in outcome.summary["parts"]:
        held = read_json(folder / f"{part}.json")
        assert (held["what"], held["model"]) == (part, str(t5_folder))
        assert (folder / f"{part}.csv").read_text(encoding="utf-8").count("\n") > 1
    page = (folder / "assess.html").read_text(encoding="utf-8")
    assert "times as fast with masks" in page
    runtime = read_json(folder / "runtime.json")
    rows, pattern = runtime["rows"], runtime["two_of_four"]
    assert pattern["rows"] or "A 2:4 pattern was not timed" in pattern["note"]
    assert [(row["form"], row["part"]) for row in rows] == [
        *(("masked", "prompt"), ("shrunk", "prompt")),
        *(("masked", "new tokens"), ("shrunk", "new tokens")),
    ]
    dense = BaseModel(t5_folder).parameters
    assert {row["form"]: row["parameters"] < dense for row in rows} == {"masked": False, "shrunk": True}
    assert all(row["macs"] == 1 if row["form"] == "masked" else row["macs"] > 1.1 for row in rows)
    other = Recipe(model=str(t5_folder), data=str(translation_data), targets=["encoder.*"])
    with pytest.raises(ConfigError, match=r"--sparsity: got 0\.9; the highest of --rates removes 0\.5"):
        assess(other, Settings(rates=(0.5,), sparsity=0.9), tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_the_assessment_of_another_model_is_not_mixed_in(
    t5_folder: Path, gated_folder: Path, translation_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.assess.pages.page.write_page", lambda *_, **__: None)
    settings = Settings(parts=("weights",))
    first, second = (Recipe(model=str(f), data=str(translation_data)) for f in (t5_folder, gated_folder))
    assess(first, settings, tmp_path / "a")
    with pytest.raises(OutputError):
        assess(second, settings, tmp_path / "a")
    assess(second, settings, tmp_path / "a", force=True)
    assert read_json(tmp_path / "a" / "weights.json")["model"] == str(gated_folder)


def test_force_measures_the_parts_again_that_are_asked_for_and_leaves_the_others(
    t5_folder: Path, translation_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.assess.pages.page.write_page", lambda *_, **__: None)
    recipe = Recipe(model=str(t5_folder), data=str(translation_data), targets=["encoder.block.0.*"])
    given = {"rates": (0.5,), "criteria": ("l1",), "repair": False, "sparsity": 0.3}
    monkeypatch.chdir(tmp_path)  # an empty folder that cannot be removed is taken as it is
    assess(recipe, Settings(parts=("weights", "sensitivity"), **given), Path("."))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    targets = [row["target"] for row in read_json(tmp_path / "weights.json")["targets"]]
    assert targets == [row["target"] for row in read_json(tmp_path / "sensitivity.json")["rows"]]
    assert all(target.startswith("encoder.block.0.") for target in targets)

    assess(recipe, Settings(parts=("proposal",), **given), Path("."), force=True)

    assert before.items() <= {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}.items()
    with pytest.raises(OutputError, match=r"other circumstances \(criterion: 'l1' then, 'l2' now\)"):
        assess(recipe, Settings(parts=("proposal",), **given | {"criteria": ("l2",)}), Path("."))


def test_neurons_are_repaired_where_only_the_first_projection_was_named(
    t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    recipe = Recipe(model=str(t5_folder), data=str(translation_data), targets=["*.wi"])
    settings = Settings(rates=(0.5,), criteria=("l1",), granularities=("neuron",), scored=4)
    rows = assess_curves(AssessedModel(recipe, settings, tmp_path / "a"))["rows"]
    assert [row["repaired"] for row in rows] == [False, True]
    assert rows[0]["loss"] != rows[1]["loss"]
