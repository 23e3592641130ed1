"""Where a workspace keeps things, which base model it takes, and how it refuses what does not fit."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import composer
from composer.errors import LibraryError, ModelError, RecipeError, SchemeError
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.recipe import Recipe
from composer.run_folder import located
from composer.steps.configure import generate_config, generate_scheme
from composer.workspace import Workspace


def recipe(folder: Path, **given: Any) -> Recipe:
    shared = {"folder": str(folder), "max_source_length": 32, "max_target_length": 16}
    return composer.load_recipe(given=shared | given, file=False)


@pytest.fixture
def planned(t5_folder: Path, translation_data: Path, tmp_path: Path) -> Workspace:
    """A folder with configurations and a scheme."""
    space = Workspace(recipe(tmp_path / "work", model=str(t5_folder), data=str(translation_data)))
    generate_config(space)
    generate_scheme(space)
    return Workspace(space.recipe)


def test_a_workspace_is_its_own_and_a_recipe_has_none(tmp_path: Path) -> None:
    given = recipe(tmp_path)
    space = composer.open(given)
    assert Workspace.of(space) is space
    assert Workspace.of(given) is not Workspace.of(given)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[nn.Module]]:
    """Every model that is loaded during a test, without keeping it alive."""
    seen: list[weakref.ref[nn.Module]] = []
    load = BaseModel.load

    def noted(base: BaseModel) -> nn.Module:
        model = load(base)
        seen.append(weakref.ref(model))
        return model

    monkeypatch.setattr(BaseModel, "load", noted)
    return seen


CRITERION = {"criterion": "wanda", "attention_granularity": "unstructured", "calibration_size": 8}
"""One that looks at data, so that pruning loads the base model and keeps what it saw."""


def test_nothing_stays_alive_after_a_step_that_was_given_a_recipe(
    loaded: list[weakref.ref[nn.Module]], t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    given = recipe(tmp_path, model=str(t5_folder), data=str(translation_data), trainer="least_squares", **CRITERION)
    for step in (generate_config, generate_scheme, composer.prune, composer.finetune_blocks):
        step(given)
    composer.build_model(given, 0)
    composer.evaluate(given, [t5_folder])
    gc.collect()
    assert len(loaded) >= 4
    assert [model() for model in loaded if model() is not None] == []
    assert [space for space in gc.get_objects() if type(space) is Workspace] == []


def test_steps_that_are_given_one_workspace_share_what_is_loaded_until_it_is_closed(
    loaded: list[weakref.ref[nn.Module]], t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    given = recipe(tmp_path, model=str(t5_folder), data=str(translation_data), trainer="least_squares", **CRITERION)
    with composer.open(given) as work:
        generate_config(work)
        generate_scheme(work)
        composer.prune(work)
        examples, base, before = work.examples("train"), work.base, len(loaded)
        gc.collect()
        assert [model() for model in loaded if model() is not None]
        composer.finetune_blocks(work)
        assert len(loaded) == before, "blocks are tuned on the base model that pruning has looked at"
        assert work.examples("train") is examples
        assert work.base is base
    gc.collect()
    assert [model() for model in loaded if model() is not None] == []
    assert work.base is not base
    assert work.base.fingerprint == base.fingerprint


def test_places(tmp_path: Path) -> None:
    space = Workspace(recipe(tmp_path))
    kinds: Any = {"composed": "2-finetuned", "baseline": "2-baseline", "dense": "dense"}
    assert {kind: space.model_folder(kind, 2).relative_to(tmp_path).as_posix() for kind in kinds} == {
        kind: f"models/{name}" for kind, name in kinds.items()
    }
    assert space.stats_file("composed", 2) == tmp_path / "stats" / "model-2.csv"
    assert space.stats_file("baseline", 2) == tmp_path / "stats" / "baseline-2.csv"
    assert space.stats_file("dense", None) == tmp_path / "stats" / "dense.csv"


def test_results_are_named_after_the_models(t5_folder: Path, tmp_path: Path) -> None:
    space = Workspace(recipe(tmp_path, model=str(t5_folder)))
    tuned = shutil.copytree(t5_folder, tmp_path / "models" / "2-finetuned")
    assert space.result_file(BaseModel(tuned)) == tmp_path / "results" / "2-finetuned.json"
    assert space.result_file(BaseModel(t5_folder)) == tmp_path / "results" / "base.json"


def test_the_result_of_the_current_folder_has_a_name(
    t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(t5_folder, tmp_path / "2-finetuned")
    monkeypatch.chdir(tmp_path / "2-finetuned")
    space = Workspace(recipe(tmp_path, model=str(t5_folder)))
    assert space.result_file(BaseModel(Path())) == tmp_path / "results" / "2-finetuned.json"


def test_the_recipes_model_wins_over_the_one_in_the_configurations(
    t5_folder: Path, bert_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "conf.json").write_text(json.dumps({"model": str(bert_folder), "configurations": [{}]}))
    assert Workspace(recipe(tmp_path)).base.folder == bert_folder
    assert Workspace(recipe(tmp_path, model=str(t5_folder))).base.folder == t5_folder


def test_a_model_in_the_configurations_is_looked_for_beside_them(t5_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(t5_folder, tmp_path / "models" / "base")
    (tmp_path / "conf.json").write_text(json.dumps({"model": "models/base", "configurations": [{}]}))
    assert (
        Workspace(recipe(tmp_path)).base.fingerprint
        == Workspace(recipe(tmp_path, model=str(t5_folder))).base.fingerprint
    )


def test_without_any_model_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"-m/--model: nothing given, and .*conf\.json names none"):
        _ = Workspace(recipe(tmp_path)).base
    (tmp_path / "conf.json").write_text("[{}]")
    with pytest.raises(ModelError, match=r"-m/--model: nothing given, and .*conf\.json names none"):
        _ = Workspace(recipe(tmp_path)).base


def test_names_in_files_are_relative_to_them(t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(t5_folder, tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    Path("runs/one").mkdir(parents=True)
    space = Workspace(recipe(Path("runs/one"), model="base"))
    assert space.stored_name(Path("runs/one")) == os.path.join("..", "..", "base")
    assert Path(located(space.stored_name(Path("runs/one")), Path("runs/one"))).resolve() == tmp_path / "base"
    assert Workspace(recipe(tmp_path, model=str(t5_folder))).stored_name(tmp_path) == str(t5_folder)
    assert Workspace(recipe(tmp_path, model="demo")).stored_name(tmp_path) == "demo"


def test_a_workspace_can_be_moved_with_its_model(
    t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(t5_folder, tmp_path / "here" / "base")
    monkeypatch.chdir(tmp_path / "here")
    generate_config(recipe(Path("work"), model="base"))
    generate_scheme(recipe(Path("work")))
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    scheme = Workspace(recipe(Path("there/work"))).scheme()
    assert len(scheme.roots) == 3


def test_a_split_is_read_once_and_its_digest_covers_the_tokens(
    t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    given = {"model": str(t5_folder), "data": str(translation_data)}
    space = Workspace(recipe(tmp_path, **given))
    assert space.examples("train") is space.examples("train")
    same = Workspace(recipe(tmp_path / "other", **given)).examples("train").digest
    shorter = Workspace(recipe(tmp_path, **given, max_source_length=3)).examples("train").digest
    prefixed = Workspace(recipe(tmp_path, **given, prefix="the ")).examples("train").digest
    assert len({space.examples("train").digest, same, shorter, prefixed}) == 3
    assert same == space.examples("train").digest


def test_a_scheme_that_is_not_there(t5_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match=r"conf_prune\.json: no such file; run `compose generate-scheme` first"):
        Workspace(recipe(tmp_path, model=str(t5_folder))).scheme()


def test_a_scheme_of_another_model(planned: Workspace, t5_folder: Path, tmp_path: Path) -> None:
    other = altered(t5_folder, tmp_path / "other")
    space = Workspace(recipe(planned.folder, model=str(other)))
    with pytest.raises(SchemeError, match=r"made for another model .*run `compose generate-scheme` again"):
        space.scheme()


def test_a_scheme_finds_its_model_by_itself(planned: Workspace, t5_folder: Path) -> None:
    planned.conf.unlink()
    space = Workspace(recipe(planned.folder))
    assert space.scheme().digest == planned.scheme().digest
    assert space.base.folder == t5_folder


def test_a_library_without_this_scheme(planned: Workspace) -> None:
    with pytest.raises(LibraryError, match=r"pruned: holds nothing for this scheme .*run `compose prune`"):
        planned.addresses(Library(planned.pruned), planned.scheme())


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "cuda:x", "cpu:", "meta", "mps:7", "xla", "hpu", "42"])
def test_an_unknown_device(device: str, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"--device: '.*' is not on this machine; allowed: auto, cpu, cuda\[:n\], mps"
    ):
        _ = Workspace(recipe(tmp_path, device=device)).device


def test_known_devices(tmp_path: Path) -> None:
    assert Workspace(recipe(tmp_path, device="cpu")).device == "cpu"
    chosen = Workspace(recipe(tmp_path)).device
    assert torch.empty(0, device=chosen).device.type in ("cpu", "cuda", "mps")


def test_the_resolved_recipe_is_plain_data_without_the_folder(tmp_path: Path) -> None:
    resolved = Workspace(recipe(tmp_path, seed=3)).resolved()
    assert resolved["seed"] == 3
    assert resolved["block"]["steps"] > 0
    assert str(tmp_path) not in json.dumps(resolved)


def altered(source: Path, folder: Path) -> Path:
    """A model that differs in one weight."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights["shared.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
