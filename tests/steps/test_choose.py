"""From wishes to conf.json: within the wish as a really smaller model is, resumable, refused where nobody can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import composer
from composer.errors import ConfigError
from composer.files.jsonfile import read_json
from composer.models.folder import BaseModel
from composer.recipe import Recipe
from composer.scheme.configurations import read_configurations, resolve
from composer.shrinking import verify
from composer.shrinking.units import Units
from composer.shrinking.verify import Answers, answers, compared
from composer.steps.choose import choose
from composer.workspace import Workspace
from tests.reference.zeroed import masked_folder


@pytest.fixture
def recipe(distilbert_folder: Path, classification_data: Path, tmp_path: Path) -> Recipe:
    return Recipe(model=str(distilbert_folder), data=str(classification_data), folder=tmp_path)


def test_each_wish_becomes_a_configuration_of_that_size(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "verify", lambda masked, small: compared(_answers(masked), _answers(small)))
    base = Workspace(recipe).base
    whole = sum(p.numel() for p in base.load().parameters())
    done = choose(recipe, {"parameters": [0.97, 0.93]}, measure=False)
    named = resolve(read_configurations(done.output), base.layout, where="conf.json")
    assert [row["keep"] for row in done.summary["choices"]] == [{"parameters": 0.97}, {"parameters": 0.93}]
    for i, row in enumerate(done.summary["choices"]):
        kept = row["kept"]

        def gone(_: int, units: Units, kept: Any = kept) -> range:
            return range(units.count - kept[units.path])

        assert set(named[i]) == {path for path in kept if kept[path] < _count(base, path)}
        small = masked_folder(Path(base.folder), tmp_path / f"masked{i}", gone)
        model = composer.load(composer.shrink(small.folder, tmp_path / f"small{i}", "exact").output)
        left = sum(p.numel() for p in model.parameters()) / whole
        assert left == pytest.approx(row["left"]["parameters"], abs=0.002)
        assert left <= row["keep"]["parameters"] + 0.002


def _answers(folder: Path) -> Answers:
    return answers(BaseModel(folder).load())


def _count(base: BaseModel, path: str) -> int:
    target = base.layout.feed_forward(path) or base.layout.target(path)
    return target.heads


def test_what_was_measured_once_is_taken_from_the_file(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = choose(recipe, {"macs": [0.5]})
    losses = read_json(tmp_path / "choice.json")["losses"]
    assert first.summary["choices"][0]["measured"] in losses.values()

    def never(_: BaseModel) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(BaseModel, "load", never)
    again = choose(recipe, {"macs": [0.5]})
    assert (again.fresh, again.summary) == (False, first.summary)


def test_a_wish_below_what_no_unit_holds_is_refused(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"cannot keep 0\.1 of the parameters of the model: .* are in no head"):
        choose(recipe, {"parameters": [0.1]}, measure=False)
