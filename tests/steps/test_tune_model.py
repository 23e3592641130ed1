"""Model-level runs of a workspace: rows and records, work folders, resuming, trials, the chance warning."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import composer
from composer.errors import OutputError, RecipeError
from composer.progress import Bar, Progress
from composer.steps import tune_model as runs
from composer.steps.settings import model_settings
from composer.steps.starting_model import starting_model
from composer.training import model as stage
from composer.workspace import Kind, Workspace

COLUMNS = ["step", "epoch", "train_loss", "valid_loss", "train_seconds", "valid_seconds"]
SMALL: dict[str, Any] = {
    "attention": [0.25, 0.5],
    "linear": [0.3, 0.5],
    "block": {"steps": 2, "batch_size": 4},
    "finetune": {"steps": 4, "batch_size": 4, "evaluations": 2},
    "max_source_length": 32,
    "max_target_length": 12,
}


class Notes(Progress):
    """Keeps what it is told; raises Ctrl-C at the step ``kill``."""

    def __init__(self, kill: int | None = None) -> None:
        self.notes: list[str] = []
        self.kill = kill

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Bar]:
        progress, done = self, [0]

        class Counting(Bar):
            def advance(self, detail: str = "") -> None:
                done[0] += 1
                if done[0] == progress.kill:
                    raise KeyboardInterrupt

        yield Counting()


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stage, "tune_model", fail)


@pytest.fixture(scope="module")
def prepared(t5_folder: Path, translation_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a library; read only."""
    folder = tmp_path_factory.mktemp("runs") / "prepared"
    given = {"model": str(t5_folder), "data": str(translation_data), "folder": str(folder)}
    space = Workspace(composer.load_recipe(given=given | SMALL, file=False))
    composer.generate_config(space)
    composer.generate_scheme(space)
    composer.prune(space)
    composer.finetune_blocks(space)
    return folder


class Here:
    """A copy of the prepared folder, and workspaces over it."""

    def __init__(self, folder: Path, model: Path, data: Path) -> None:
        self.folder, self.model, self.data = folder, model, data

    def space(self, **changes: Any) -> Workspace:
        given = {"model": str(self.model), "data": str(self.data), "folder": str(self.folder)}
        return Workspace(composer.load_recipe(given=given | SMALL | changes, file=False))

    @property
    def work(self) -> list[str]:
        return sorted(path.name for path in (self.folder / ".work").glob("*"))


@pytest.fixture
def here(prepared: Path, t5_folder: Path, translation_data: Path, tmp_path: Path) -> Here:
    return Here(Path(shutil.copytree(prepared, tmp_path / "run")), t5_folder, translation_data)


@pytest.mark.parametrize(
    ("kind", "number", "name", "stats"),
    [
        ("composed", 1, "1-finetuned", "model-1"),
        ("baseline", 1, "1-baseline", "baseline-1"),
        ("dense", None, "dense", "dense"),
    ],
)
def test_a_run_leaves_a_model_its_rows_and_a_record(
    kind: Kind, number: int | None, name: str, stats: str, here: Here
) -> None:
    done = runs.finetune_model(here.space(), kind, number)
    assert done.output == here.folder / "models" / name
    table = rows(here.folder / "stats" / f"{stats}.csv")
    assert [*table[0]] == COLUMNS
    assert [row["step"] for row in table] == ["0", "2", "4"]
    assert table[0]["train_loss"] == ""
    losses = [float(row["valid_loss"]) for row in table]
    assert done.summary["first_loss"] == losses[0]
    assert done.summary["final_loss"] == min(losses)
    assert done.summary["best_step"] == 2 * losses.index(min(losses))
    assert done.summary["seconds"] == float(table[-1]["train_seconds"])
    assert here.work == []
    for path in (here.folder / "models" / name / "composer.json", here.folder / "stats" / f"{stats}.json"):
        record = json.loads(path.read_text())
        assert record["versions"]["torch"] == torch.__version__
        assert record["machine"]["threads"] == torch.get_num_threads()
        assert record["device"] == here.space().device
        assert (record["recipe"]["seed"], record["recipe"]["finetune"]["steps"]) == (0, 4)
        assert record["inputs"]["data"]["train"] == here.space().examples("train").digest
        assert record["inputs"]["settings"]["learning_rate"] == 0.0001
        assert record["result"] == done.summary


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"steps": 7, "epochs": 3.0, "batch_size": 4}, 7),
        ({"epochs": 1.5, "batch_size": 4}, 9),
        ({"epochs": 1.0, "batch_size": 5}, 5),
        ({"epochs": 0.01, "batch_size": 4}, 1),
        ({"epochs": 2.0, "batch_size": 100}, 1),
    ],
)
def test_epochs_are_turned_into_steps(options: dict[str, Any], steps: int, here: Here) -> None:
    assert model_settings(here.space(finetune=options)).steps == steps  # of 24 examples


def test_a_killed_run_goes_on_and_leaves_no_work_behind(here: Here, prepared: Path, tmp_path: Path) -> None:
    whole = Here(Path(shutil.copytree(prepared, tmp_path / "whole")), here.model, here.data)
    wanted = runs.finetune_model(whole.space(), "composed", 0)
    with pytest.raises(KeyboardInterrupt):
        runs.finetune_model(here.space(), "composed", 0, progress=Notes(kill=3))
    assert len(here.work) == 1
    assert list((here.folder / ".work").glob("*/checkpoint-2/composer.json"))
    assert not (here.folder / "models").exists()
    assert not (here.folder / "stats" / "model-0.csv").exists()

    done = runs.finetune_model(here.space(), "composed", 0)
    assert sha(done.output / "model.safetensors") == sha(wanted.output / "model.safetensors")
    assert here.work == []
    losses = [[row[name] for name in COLUMNS[:4]] for row in rows(here.folder / "stats" / "model-0.csv")]
    assert losses == [[row[name] for name in COLUMNS[:4]] for row in rows(whole.folder / "stats" / "model-0.csv")]


def test_the_work_of_another_run_is_not_gone_on_with(here: Here, prepared: Path, tmp_path: Path) -> None:
    whole = Here(Path(shutil.copytree(prepared, tmp_path / "whole")), here.model, here.data)
    wanted = runs.finetune_model(whole.space(seed=1), "composed", 0)
    with pytest.raises(KeyboardInterrupt):
        runs.finetune_model(here.space(), "composed", 0, progress=Notes(kill=3))
    done = runs.finetune_model(here.space(seed=1), "composed", 0)
    assert sha(done.output / "model.safetensors") == sha(wanted.output / "model.safetensors")


def test_a_lost_table_is_made_again(here: Here) -> None:
    first = runs.finetune_model(here.space(), "composed", 0)
    before = sha(first.output / "model.safetensors")
    (here.folder / "stats" / "model-0.csv").unlink()
    again = runs.finetune_model(here.space(), "composed", 0)
    assert again.fresh
    assert sha(again.output / "model.safetensors") == before
    assert (here.folder / "stats" / "model-0.csv").is_file()


def test_a_rate_that_is_given_wins_over_the_recipes(here: Here) -> None:
    runs.finetune_model(here.space(), "dense", None, learning_rate=0.02)
    record = json.loads((here.folder / "stats" / "dense.json").read_text())
    assert record["inputs"]["settings"]["learning_rate"] == 0.02
    with pytest.raises(OutputError, match=r"dense: .*learning_rate: 0\.02 then, 0\.0001 now"):
        runs.finetune_model(here.space(), "dense", None)


def test_scheme_library_and_output_can_lie_elsewhere(here: Here) -> None:
    wanted = runs.finetune_model(here.space(), "composed", 0)
    (here.folder / "conf_prune.json").rename(here.folder / "plan.json")
    (here.folder / "modules" / "finetuned").rename(here.folder / "library")
    done = runs.finetune_model(
        here.space(),
        "composed",
        0,
        scheme=here.folder / "plan.json",
        modules=here.folder / "library",
        output=here.folder / "mine",
    )
    assert done.output == here.folder / "mine"
    assert sha(done.output / "model.safetensors") == sha(wanted.output / "model.safetensors")


def test_a_trial_is_not_run_twice(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    space = here.space()
    start, settings = starting_model(space, "composed", 1), replace(model_settings(space), steps=2)
    first = runs.trial(space, start, settings, "model-1-of-0.5")
    assert [row["step"] for row in rows(here.folder / "stats" / "model-1-of-0.5.csv")] == ["0", "1", "2"]
    assert (first["steps"], here.work) == (2, [])
    assert not (here.folder / "models").exists()
    no_training(monkeypatch)
    assert runs.trial(here.space(), start, settings, "model-1-of-0.5") == first


def test_a_trial_of_other_inputs_is_run_again_without_asking(here: Here) -> None:
    space = here.space()
    start, settings = starting_model(space, "composed", 1), replace(model_settings(space), steps=2)
    runs.trial(space, start, settings, "search-composed-0.001")
    assert runs.trial(space, start, replace(settings, steps=3), "search-composed-0.001")["steps"] == 3


def test_the_model_of_a_kept_trial_is_taken_over(
    here: Here, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Here(Path(shutil.copytree(prepared, tmp_path / "whole")), here.model, here.data)
    wanted = runs.finetune_model(whole.space(), "composed", 1)
    space = here.space()
    start, settings = starting_model(space, "composed", 1), model_settings(space)
    tried = runs.trial(space, start, settings, "search-composed-0.001", keep=True)
    assert len(here.work) == 1

    with monkeypatch.context() as patch:
        no_training(patch)
        done = runs.finetune_model(here.space(), "composed", 1)
        assert done.fresh
        assert not runs.finetune_model(here.space(), "composed", 1).fresh
    assert here.work == []
    assert done.summary["seconds"] == tried["seconds"]
    assert done.summary["stats"].endswith("model-1.csv")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert sha(done.output / name) == sha(wanted.output / name)
    assert (here.folder / "stats" / "model-1.csv").read_bytes() == (
        here.folder / "stats" / "search-composed-0.001.csv"
    ).read_bytes()


def test_the_model_of_another_trial_is_not_taken_over(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    space = here.space()
    start, settings = starting_model(space, "composed", 1), replace(model_settings(space), learning_rate=0.5)
    runs.trial(space, start, settings, "search-composed-0.5", keep=True)
    no_training(monkeypatch)
    with pytest.raises(AssertionError, match="trained again"):
        runs.finetune_model(here.space(), "composed", 1)


def test_a_base_model_no_better_than_chance_is_noted_once(here: Here) -> None:
    space, progress = here.space(), Notes()
    runs.finetune_model(space, "composed", 0, progress=progress)
    runs.finetune_model(space, "baseline", 0, progress=progress)
    (note,) = progress.notes
    assert note.startswith("warning: the base model is no better than chance on this task")
    assert f"chance {math.log(space.base.config['vocab_size']):.3f}" in note
    assert note.endswith("fine-tune it dense first: compose finetune --level model --dense")


def test_a_base_model_that_knows_the_task_is_not_warned_of(here: Here, tmp_path: Path) -> None:
    learned = {"finetune": {"steps": 40, "batch_size": 8, "evaluations": 1, "learning_rate": 0.02}}
    runs.finetune_model(here.space(**learned), "dense", None)
    better = Here(tmp_path / "better", here.folder / "models" / "dense", here.data)
    progress = Notes()
    runs.finetune_model(better.space(), "dense", None, progress=progress)
    assert progress.notes == []


def test_results_of_a_model_and_their_record(here: Here) -> None:
    done = composer.evaluate(here.space(), [here.model, here.model])
    assert sorted(path.name for path in (here.folder / "results").iterdir()) == ["base.json"]
    record = json.loads((here.folder / "results" / "base.json").read_text())
    assert record["result"] == done.summary["results"][0] == done.summary["results"][1]
    assert record["inputs"]["model"] == here.space().base.fingerprint
    assert record["inputs"]["data"] == here.space().examples("test").digest
    assert record["result"]["examples"] == 8


def test_one_output_for_several_models_is_refused(here: Here) -> None:
    with pytest.raises(RecipeError, match="-o/--output: one file for 2 models"):
        composer.evaluate(here.space(), [here.model, here.model], output=here.folder / "one.json")


def test_results_on_other_data_want_force_unless_they_may_be_renewed(here: Here) -> None:
    out = here.folder / "one.json"
    assert composer.evaluate(here.space(), [here.model], output=out).fresh
    with pytest.raises(
        OutputError, match=r"one\.json: exists and was made from other inputs \(another data\); --force"
    ):
        composer.evaluate(here.space(test_size=3), [here.model], output=out)
    assert composer.evaluate(here.space(test_size=3), [here.model], output=out, renew=True).fresh
    assert not composer.evaluate(here.space(test_size=3), [here.model], output=out, renew=True).fresh
    assert json.loads(out.read_text())["result"]["examples"] == 3


def test_how_much_is_generated_is_part_of_a_result(here: Here) -> None:
    composer.evaluate(here.space(), [here.model])
    with pytest.raises(OutputError, match=r"max_new_tokens: 12 then, 10 now"):
        composer.evaluate(here.space(max_target_length=10), [here.model])


def test_a_model_is_measured_where_nothing_names_a_base_model(here: Here, tmp_path: Path) -> None:
    given = {"data": str(here.data), "folder": str(tmp_path / "empty"), "max_target_length": 12}
    done = composer.evaluate(composer.load_recipe(given=given, file=False), [here.model])
    assert done.summary["results"][0]["examples"] == 8
