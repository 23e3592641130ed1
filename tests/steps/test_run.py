"""The whole way from one recipe: what it leaves, what it skips, what it plans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import composer
from composer.errors import ModelError, OutputError, RecipeError
from composer.steps.run import demo_recipe, plan, run

STEPS = ["generate-config", "generate-scheme", "prune", "finetune --level block", "build-model", "compare", "report"]


def content(model: str, data: str) -> dict[str, Any]:
    """A recipe as a user writes it."""
    return {
        "model": model,
        "data": data,
        "attention": [0.25, 0.5],
        "linear": [0.3, 0.5],
        "block": {"steps": 2, "batch-size": 4},
        "finetune": {"steps": 2, "batch-size": 4, "evaluations": 1, "learning-rate": 0.001},
        "budgets": [1.0],
        "max-source-length": 32,
        "max-target-length": 12,
    }


def write(folder: Path, **values: Any) -> None:
    (folder / "compose.yaml").write_text(yaml.safe_dump(values))


def times(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def finished(t5_folder: Path, translation_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe that was run there by its relative paths; read only."""
    folder = tmp_path_factory.mktemp("pipeline") / "work"
    folder.mkdir()
    shutil.copytree(t5_folder, folder / "base")
    shutil.copytree(translation_data, folder / "data")
    write(folder, **content("base", "data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = plan(composer.load_recipe())
        assert [row["step"] for row in rows] == STEPS
        assert not any(row["done"] for row in rows)
        outcome = run(composer.load_recipe())
        assert outcome.fresh
        assert outcome.output == Path("report.html")
    return folder


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    folder = Path(shutil.copytree(finished, tmp_path / "work"))
    monkeypatch.chdir(folder)
    return folder


def test_everything_lies_in_the_folder_of_the_recipe(finished: Path) -> None:
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*")}
    assert {"conf.json", "conf_prune.json", "report.html", "results/comparison.json", "stats/block.csv"} <= names
    assert {f"models/{i}{kind}" for i in (0, 1) for kind in ("", "-finetuned", "-baseline")} <= names
    assert not [name for name in names if name.endswith((".tmp", ".old"))]
    assert json.loads((finished / "conf.json").read_text())["model"] == "base"


def test_run_again_it_does_nothing(here: Path) -> None:
    before = times(here)
    assert not run(composer.load_recipe()).fresh
    assert times(here) == before
    rows = plan(composer.load_recipe())
    assert all(row["done"] for row in rows)
    assert "compose 2 " in rows[4]["does"]


def test_what_is_missing_is_made_again(here: Path) -> None:
    before = times(here)
    (here / "report.html").unlink()
    shutil.rmtree(here / "models" / "1-finetuned")
    assert [row["step"] for row in plan(composer.load_recipe()) if not row["done"]] == ["report"]
    assert run(composer.load_recipe()).fresh
    after = times(here)
    assert before.keys() == after.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert {name.split("/")[0] for name in changed} <= {
        *("models", "stats", "results"),
        *("report.html", "ledger.png", "summary.png"),
    }
    assert not {name for name in changed if name.startswith("models/") and "1-finetuned" not in name}


def test_a_changed_recipe_is_refused_until_forced(here: Path) -> None:
    recipe = yaml.safe_load((here / "compose.yaml").read_text())
    recipe["block"]["steps"] = 3
    write(here, **recipe)
    with pytest.raises(OutputError, match=r"finetuned: .*settings: steps: 2 then, 3 now.*--force"):
        run(composer.load_recipe())
    assert run(composer.load_recipe(), force=True).fresh
    assert not run(composer.load_recipe()).fresh


def test_configurations_written_by_hand_are_kept(here: Path) -> None:
    conf = json.loads((here / "conf.json").read_text())
    conf["configurations"] = conf["configurations"][:1]
    (here / "conf.json").write_text(json.dumps(conf))
    # The recipe's rates make other configurations: which of the two is meant is for the user to say.
    with pytest.raises(OutputError, match=r"conf\.json: exists with other content.*--force"):
        run(composer.load_recipe())
    assert json.loads((here / "conf.json").read_text()) == conf
    # A recipe without rates takes the file as it is; the scheme of the old ones is in the way.
    recipe = yaml.safe_load((here / "compose.yaml").read_text())
    kept = {key: value for key, value in recipe.items() if key not in ("attention", "linear", "count")}
    (here / "compose.yaml").write_text(yaml.safe_dump(kept))
    with pytest.raises(OutputError, match=r"conf_prune\.json: .*other configurations.*--force"):
        run(composer.load_recipe())
    (here / "conf_prune.json").unlink()
    assert len(run(composer.load_recipe()).summary["rows"]) == 1
    assert json.loads((here / "conf.json").read_text()) == conf


def test_configurations_named_in_the_recipe_are_taken(here: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps([{"encoder.block.*.layer.0.SelfAttention": 0.5}]))
    given = {"config": str(tmp_path / "mine.json"), "folder": str(tmp_path / "other")}
    done = run(composer.load_recipe(given=given))
    (row,) = done.summary["rows"]
    assert json.loads((tmp_path / "other" / "conf.json").read_text())["configurations"] == [
        {"encoder.block.*.layer.0.SelfAttention": 0.5}
    ]
    # Two heads of four, in q, k and v of two layers, of 16 x 12 weights each; and all target weights.
    attention = 3 * 16 * 12
    everything = 6 * attention + 6 * 16 * 12 + 4 * 2 * 12 * 24
    assert row["sparsity"] == pytest.approx(2 * attention / 2 / everything)
    assert not run(composer.load_recipe(given=given)).fresh


def test_flags_win_over_the_recipe(here: Path) -> None:
    assert composer.load_recipe().finetune.steps == 2
    assert composer.load_recipe(given={"finetune": {"steps": 9}}).finetune.steps == 9
    assert composer.load_recipe(given={"finetune": {"steps": 9}}).finetune.batch_size == 4


def test_an_unknown_key_suggests_the_near_one(here: Path) -> None:
    write(here, finetune={"stepps": 3}, bugets=[1.0])
    with pytest.raises(RecipeError) as caught:
        composer.load_recipe()
    assert sorted(caught.value.problems) == [
        "compose.yaml: unknown key 'bugets'; did you mean 'budgets'?",
        "compose.yaml: unknown key 'finetune.stepps'; did you mean 'steps'?",
    ]


def test_a_run_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="-m/--model: nothing given"):
        run(composer.load_recipe(given={"folder": str(tmp_path / "new"), "data": "demo"}, file=False))


def test_the_demos_recipe_is_valid_and_takes_options(tmp_path: Path) -> None:
    recipe = demo_recipe(tmp_path, {"seed": 9, "finetune": {"steps": 3}})
    assert (recipe.model, recipe.data, recipe.folder) == ("demo", "demo", tmp_path)
    assert (recipe.seed, recipe.finetune.steps, recipe.finetune.batch_size) == (9, 3, 32)
    assert recipe.random == 12
