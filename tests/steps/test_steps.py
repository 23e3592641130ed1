"""Each command's step on tiny models: done once, refused when inputs changed, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import composer
from composer.errors import DataError, InputError, LibraryError, ModelError, OutputError, RecipeError, SchemeError
from composer.library.store import Library
from composer.models.folder import BaseModel
from composer.recipe import Recipe
from composer.steps.outcome import Outcome

FAMILIES = ("t5", "distilbert")
SMALL: dict[str, Any] = {
    "attention": [0.25, 0.5],
    "linear": [0.3, 0.5],
    "block": {"steps": 2, "batch_size": 4},
    "finetune": {"steps": 2, "batch_size": 4, "evaluations": 1, "learning_rate": 1e-3},
    "max_source_length": 32,
    "max_target_length": 12,
}
Step = Callable[[Recipe], Outcome]
Steps = dict[str, Step]
STEPS: Steps = {
    "generate_config": lambda r, **o: composer.generate_config(r, **o),
    "generate_scheme": lambda r, **o: composer.generate_scheme(r, **o),
    "prune": lambda r, **o: composer.prune(r, **o),
    "finetune_blocks": lambda r, **o: composer.finetune_blocks(r, **o),
    "build_model": lambda r, **o: composer.build_model(r, 0, **o),
    "composed": lambda r, **o: composer.finetune_model(r, "composed", 0, **o),
    "baseline": lambda r, **o: composer.finetune_model(r, "baseline", 0, **o),
    "dense": lambda r, **o: composer.finetune_model(r, "dense", None, **o),
    "evaluate": lambda r, **o: composer.evaluate(r, [r.folder / "models" / "0"], **o),
}


class Given:
    """A base model with its data, and recipes over them."""

    def __init__(self, model: Path, data: Path) -> None:
        self.model, self.data = model, data

    def recipe(self, folder: Path, **changes: Any) -> Recipe:
        start = {"model": str(self.model), "data": str(self.data), "folder": str(folder)}
        return composer.load_recipe(given=start | SMALL | changes, file=False)

    def do(self, folder: Path, names: Iterable[str] = STEPS, **changes: Any) -> dict[str, Outcome]:
        """Take steps, each with a recipe of its own as a command would."""
        return {name: STEPS[name](self.recipe(folder, **changes)) for name in names}


def until(last: str) -> list[str]:
    names = [*STEPS]
    return names[: names.index(last) + 1]


def files(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with its sha256 and the time of its last change."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def weights(folder: Path) -> dict[str, str]:
    """Every safetensors file with its sha256."""
    return {name: digest for name, (digest, _) in files(folder).items() if name.endswith(".safetensors")}


def problems(step: Callable[[], Any], error: type[InputError]) -> str:
    """What a refusal says: one line per problem."""
    with pytest.raises(error) as caught:
        step()
    assert all("\n" not in problem for problem in caught.value.problems)
    return str(caught.value)


def altered(source: Path, folder: Path) -> Path:
    """A model that differs in one weight."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    name = min(tensors)
    tensors[name].view(-1)[0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def families(
    model_folder: Callable[[str], Path], translation_data: Path, classification_data: Path
) -> dict[str, Given]:
    data = {"t5": translation_data, "distilbert": classification_data}
    return {name: Given(model_folder(name), data[name]) for name in FAMILIES}


@pytest.fixture(scope="module")
def t5(families: dict[str, Given]) -> Given:
    return families["t5"]


@pytest.fixture(scope="module")
def finished(families: dict[str, Given], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per family in which every step was taken; read only."""
    made = {}
    for name, given in families.items():
        made[name] = tmp_path_factory.mktemp("finished") / name
        outcomes = given.do(made[name])
        assert {step for step, outcome in outcomes.items() if not outcome.fresh} == set()
    return made


@pytest.fixture
def folder(finished: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the finished T5 folder."""
    return Path(shutil.copytree(finished["t5"], tmp_path / "t5"))


@pytest.mark.parametrize("family", FAMILIES)
def test_taken_again_each_step_does_nothing(family: str, families: dict[str, Given], finished: dict[str, Path]) -> None:
    before = files(finished[family])
    again = families[family].do(finished[family])
    assert {step for step, outcome in again.items() if outcome.fresh} == set()
    assert files(finished[family]) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_made_lies_where_the_layout_says(family: str, finished: dict[str, Path]) -> None:
    made = finished[family]
    names = {path.relative_to(made).as_posix() for path in made.rglob("*") if ".work" not in path.parts}
    for name in ("conf.json", "conf_prune.json", "modules/pruned", "modules/finetuned", "results/0.json"):
        assert name in names
    for model in ("0", "0-finetuned", "0-baseline", "dense"):
        assert {f"models/{model}/{file}" for file in ("config.json", "model.safetensors", "README.md")} <= names
    for stats in ("block", "model-0", "baseline-0", "dense"):
        assert f"stats/{stats}.csv" in names
    assert not [name for name in names if name.endswith((".tmp", ".old", ".bin", ".pt", ".pth", ".pkl"))]
    assert not list(made.glob(".work/*"))


def test_outcomes_are_plain_data(t5: Given, finished: dict[str, Path]) -> None:
    for outcome in t5.do(finished["t5"]).values():
        assert json.loads(json.dumps(outcome.summary)) == outcome.summary
        assert outcome.output.exists()


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        ("generate_config", {"linear": [0.4, 0.5]}, r"conf\.json: exists with other content"),
        ("generate_scheme", {"block_levels": ["module"]}, r"conf_prune\.json: .*\(other block levels\)"),
        ("finetune_blocks", {"block": {"steps": 3, "batch_size": 4}}, r"finetuned: .*settings: steps: 2 then, 3 now"),
        ("finetune_blocks", {"train_size": 7}, r"finetuned: .*data: another train"),
        ("composed", {"finetune": {**SMALL["finetune"], "steps": 3}}, r"0-finetuned: .*settings: steps: 2 then, 3 now"),
        ("composed", {"seed": 1}, r"0-finetuned: .*settings: seed: 0 then, 1 now"),
        ("composed", {"precision": "bf16"}, r"precision: 'fp32' then, 'bf16' now"),
        ("baseline", {"train_size": 7}, r"0-baseline: .*data: another train"),
        (
            "dense",
            {"finetune": {**SMALL["finetune"], "learning_rate": 0.5}},
            r"dense: .*learning_rate: 0\.001 then, 0\.5",
        ),
        ("evaluate", {"num_beams": 2}, r"0\.json: .*beams: 1 then, 2 now"),
        ("evaluate", {"test_size": 4}, r"0\.json: .*another data"),
    ],
)
def test_changed_inputs_are_refused_with_what_changed_and_force_replaces(
    step: str, changes: dict[str, Any], message: str, t5: Given, folder: Path
) -> None:
    before = files(folder)
    line = problems(lambda: t5.do(folder, [step], **changes), OutputError)
    assert re.search(message, line)
    assert "--force" in line
    assert files(folder) == before
    assert STEPS[step](t5.recipe(folder, **changes), force=True).fresh
    assert not STEPS[step](t5.recipe(folder, **changes)).fresh


def test_models_of_other_blocks_are_refused(t5: Given, folder: Path) -> None:
    changes: dict[str, Any] = {"block": {"steps": 3, "batch_size": 4}}
    composer.finetune_blocks(t5.recipe(folder, **changes), force=True)
    for step in ("build_model", "composed"):
        line = problems(lambda step=step: t5.do(folder, [step], **changes), OutputError)
        assert re.search(r"models/0(-finetuned)?: .*\(blocks: \d+ differ\)", line)
        assert STEPS[step](t5.recipe(folder, **changes), force=True).fresh
    assert not composer.finetune_model(t5.recipe(folder, **changes), "baseline", 0).fresh


def test_force_without_a_change_makes_the_same_again(t5: Given, folder: Path) -> None:
    before = weights(folder)
    for step in STEPS.values():
        step(t5.recipe(folder), force=True)
    assert weights(folder) == before


def test_a_changed_configuration_file_is_noticed(t5: Given, folder: Path) -> None:
    conf = json.loads((folder / "conf.json").read_text())
    conf["configurations"][0]["encoder.block.0.layer.0.SelfAttention"] = 0.75
    (folder / "conf.json").write_text(json.dumps(conf))
    line = problems(lambda: t5.do(folder, ["generate_scheme"]), OutputError)
    assert re.search(r"conf_prune\.json: .*\(other configurations\); --force replaces it", line)


def test_another_base_model_is_noticed_everywhere(t5: Given, folder: Path, tmp_path: Path) -> None:
    other = Given(altered(t5.model, tmp_path / "other"), t5.data)
    line = problems(lambda: other.do(folder, ["generate_scheme"]), OutputError)
    assert "another base model" in line
    for step in until("baseline")[2:]:
        line = problems(lambda step=step: other.do(folder, [step]), SchemeError)
        assert "made for another model" in line
        assert "run `compose generate-scheme` again" in line


@pytest.mark.parametrize("number", [-1, 2, 99])
def test_a_configuration_that_is_not_there(number: int, t5: Given, finished: dict[str, Path]) -> None:
    recipe = t5.recipe(finished["t5"])
    wanted = rf"-n/--configuration: got {number}; allowed: 0 to 1"
    with pytest.raises(SchemeError, match=wanted):
        composer.build_model(recipe, number)
    for kind in ("composed", "baseline"):
        with pytest.raises(SchemeError, match=wanted):
            composer.finetune_model(recipe, kind, number)


def test_a_kind_that_needs_a_configuration_says_so(t5: Given, finished: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="-n/--configuration: nothing given; name one, counted from 0, or --all"):
        composer.finetune_model(t5.recipe(finished["t5"]), "composed", None)


@pytest.mark.parametrize("step", until("baseline")[2:])
def test_without_a_scheme_each_step_says_what_to_run(step: str, t5: Given, tmp_path: Path) -> None:
    with pytest.raises(SchemeError, match=r"conf_prune\.json: no such file; run `compose generate-scheme` first"):
        t5.do(tmp_path, [step])
    assert files(tmp_path) == {}


def test_a_scheme_needs_configurations(t5: Given, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"conf\.json: no such file"):
        t5.do(tmp_path, ["generate_scheme"])


def test_without_a_library_each_step_says_what_to_run(t5: Given, tmp_path: Path) -> None:
    t5.do(tmp_path, until("generate_scheme"))
    before = files(tmp_path)
    for step in ("finetune_blocks", "build_model", "composed", "baseline"):
        with pytest.raises(LibraryError, match=r"holds nothing for this scheme \(\w+\); run `compose prune`"):
            t5.do(tmp_path, [step])
    assert files(tmp_path) == before


@pytest.mark.parametrize("step", ["build_model", "composed"])
def test_a_damaged_block_is_named(step: str, t5: Given, folder: Path) -> None:
    shutil.rmtree(folder / "models")
    blocks = json.loads(next((folder / "modules" / "finetuned").glob("scheme-*.json")).read_text())["addresses"]
    scheme = json.loads((folder / "conf_prune.json").read_text())
    root = next(n for n in scheme["nodes"] if n["hash"] == scheme["configurations"][0])
    path = folder / "modules" / "finetuned" / f"{blocks[root['children'][0]]}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    line = problems(lambda: t5.do(folder, [step]), LibraryError)
    assert path.name in line
    assert "damaged" in line
    assert not (folder / "models").exists() or not [*(folder / "models").iterdir()]


def test_a_damaged_variant_is_named_and_mended_by_pruning_again(t5: Given, tmp_path: Path) -> None:
    t5.do(tmp_path, until("prune"))
    whole = weights(tmp_path)
    path = min((tmp_path / "modules" / "pruned").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-3])
    line = problems(lambda: t5.do(tmp_path, ["finetune_blocks"]), LibraryError)
    assert path.name in line
    assert "delete the block and run the command that made it again" in line
    path.unlink()
    assert composer.prune(t5.recipe(tmp_path)).summary["made"] == 1
    assert {name: weights(tmp_path)[name] for name in whole} == whole


def test_a_deleted_block_is_tuned_again_to_the_same_bytes(t5: Given, folder: Path) -> None:
    whole = weights(folder)
    path = min((folder / "modules" / "finetuned").glob("*.safetensors"))
    path.unlink()
    assert composer.finetune_blocks(t5.recipe(folder)).fresh
    assert weights(folder) == whole


@pytest.mark.parametrize("step", ["finetune_blocks", "composed", "evaluate"])
def test_an_unknown_device(step: str, t5: Given, folder: Path) -> None:
    shutil.rmtree(folder / "modules" / "finetuned", ignore_errors=step == "finetune_blocks")
    t5.do(folder, until("finetune_blocks")) if step != "finetune_blocks" else None
    before = files(folder)
    with pytest.raises(RecipeError, match=r"--device: 'tpu' is not on this machine; allowed: auto, cpu"):
        STEPS[step](t5.recipe(folder, device="tpu"), force=True)
    assert files(folder) == before


@pytest.mark.parametrize("part", ["block", "finetune"])
@pytest.mark.parametrize("field", ["steps", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_steps_and_batch_sizes_are_whole_numbers_above_zero(part: str, field: str, value: Any) -> None:
    name = f"{part}.{field.replace('_', '-')}"
    with pytest.raises(RecipeError, match=rf"options: {name}: got {value}; "):
        composer.load_recipe(given={part: {field: value}}, file=False)


@pytest.mark.parametrize("step", ["finetune_blocks", "composed", "dense", "evaluate"])
def test_missing_data_is_refused_before_anything_is_written(step: str, t5: Given, folder: Path) -> None:
    before = files(folder)
    with pytest.raises(DataError, match="there is no folder"):
        STEPS[step](t5.recipe(folder, data=str(folder / "nothing")), force=True)
    with pytest.raises(RecipeError, match="--data: nothing given"):
        STEPS[step](t5.recipe(folder).model_copy(update={"data": None}), force=True)
    assert files(folder) == before


def test_files_of_unequal_length_are_refused(t5: Given, folder: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(t5.data, tmp_path / "data"))
    (data / "train.de").write_text("der mann\n")
    before = files(folder)
    for step in ("finetune_blocks", "dense"):
        with pytest.raises(DataError, match=r"train\.(en|de).*24.*1|train\.(en|de).*1.*24"):
            STEPS[step](t5.recipe(folder, data=str(data)), force=True)
    assert files(folder) == before


def test_a_folder_where_a_file_should_be(t5: Given, tmp_path: Path) -> None:
    (tmp_path / "conf.json").mkdir()
    with pytest.raises(OutputError, match=r"conf\.json: "):
        t5.do(tmp_path, ["generate_config"])
    (tmp_path / "conf.json").rmdir()
    t5.do(tmp_path, ["generate_config"])
    (tmp_path / "conf_prune.json").mkdir()
    with pytest.raises(OutputError, match=r"conf_prune\.json: exists and is no scheme"):
        t5.do(tmp_path, ["generate_scheme"])


@pytest.mark.parametrize(
    ("step", "call"), [*((step, "replace") for step in STEPS), ("prune", "fsync"), ("build_model", "fsync")]
)
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    step: str, call: str, t5: Given, finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Path(shutil.copytree(finished["t5"], tmp_path / "t5"))
    new = {
        "generate_config": ["conf.json"],
        "generate_scheme": ["conf_prune.json"],
        "prune": ["modules/pruned"],
        "finetune_blocks": ["modules/finetuned", "stats/block.csv"],
        "build_model": ["models/0"],
        "composed": ["models/0-finetuned", "stats/model-0.csv", "stats/model-0.json"],
        "baseline": ["models/0-baseline", "stats/baseline-0.csv", "stats/baseline-0.json"],
        "dense": ["models/dense", "stats/dense.csv", "stats/dense.json"],
        "evaluate": ["results"],
    }[step]
    for name in new:
        shutil.rmtree(work / name) if (work / name).is_dir() else (work / name).unlink()
    before = files(work)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        line = problems(lambda: t5.do(work, [step]), OutputError)
    assert "cannot be written: the disk is full" in line
    assert {name: content for name, content in files(work).items() if not name.startswith(".work/")} == before
    assert not [*work.rglob("*.tmp")]
    assert STEPS[step](t5.recipe(work)).fresh
    assert weights(work) == weights(finished["t5"])


@pytest.mark.parametrize("step", ["build_model", "composed"])
def test_a_disk_that_fills_up_while_weights_are_saved(
    step: str, t5: Given, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(folder)

    def full(self: BaseModel, model: Any, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "save", full)
        with pytest.raises(OutputError, match=r"models/0(-finetuned)?: cannot be written: the disk is full"):
            STEPS[step](t5.recipe(folder), force=True)
    assert {name: content for name, content in files(folder).items() if not name.startswith(".work/")} == before


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["0", "0-finetuned", "0-baseline"])
def test_each_target_has_exactly_the_zeros_that_the_configuration_asks(
    family: str, name: str, families: dict[str, Given], finished: dict[str, Path]
) -> None:
    rates = json.loads((finished[family] / "conf.json").read_text())["configurations"][0]
    saved = load_file(finished[family] / "models" / name / "model.safetensors")
    base = load_file(families[family].model / "model.safetensors")
    assert saved.keys() == base.keys()
    for path, rate in rates.items():
        if f"{path}.weight" in saved:
            weight = saved[f"{path}.weight"]
            assert int((weight == 0).sum()) == round(rate * weight.numel())
            continue
        parts = [key for key in saved if key.startswith(f"{path}.") and key.split(".")[-2][0] in "qkv"]
        heads = [part for part in parts if part.endswith(".weight")]
        assert len(heads) == 3
        for part in heads:  # the same heads, of four, in all three, bias rows with them
            rows = (saved[part] == 0).all(1)
            assert int(rows.sum()) == round(rate * 4) * len(rows) // 4
            assert int((saved[part] == 0).sum()) == int(rows.sum()) * saved[part].shape[1]
            assert torch.equal(rows, (saved[heads[0]] == 0).all(1))
            bias = saved.get(part.replace(".weight", ".bias"))
            assert bias is None or torch.equal(bias == 0, rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_no_target_is_composed_of_the_base_models_weights(
    family: str, families: dict[str, Given], tmp_path: Path
) -> None:
    given = families[family]
    given.do(tmp_path, until("prune"))
    composer.build_model(given.recipe(tmp_path), 1, modules=tmp_path / "modules" / "pruned")
    saved = load_file(tmp_path / "models" / "1" / "model.safetensors")
    for name, weight in load_file(given.model / "model.safetensors").items():
        kept = saved[name] != 0
        assert torch.equal(saved[name][kept], weight[kept])
        if "embed" in name or "norm" in name.lower() or "classifier" in name:
            assert torch.equal(saved[name], weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_folders_are_ordinary(family: str, families: dict[str, Given], finished: dict[str, Path]) -> None:
    from transformers import AutoTokenizer

    base = families[family].model
    wanted = AutoTokenizer.from_pretrained(base)("the old man sees a dog")["input_ids"]
    for name in ("0", "0-finetuned", "0-baseline", "dense"):
        saved = finished[family] / "models" / name
        assert AutoTokenizer.from_pretrained(saved)("the old man sees a dog")["input_ids"] == wanted
        config, before = (json.loads((path / "config.json").read_text()) for path in (saved, base))
        assert config == before
        assert (saved / "generation_config.json").is_file() == (base / "generation_config.json").is_file()
        card = " ".join((saved / "README.md").read_text().split())
        masked = "as large and the model as slow as the dense one until it is shrunk"
        assert (masked in card) == (name != "dense")
        lineage = json.loads((saved / "composer.json").read_text())
        assert lineage["versions"]["torch"] == torch.__version__
        assert lineage["recipe"]["seed"] == 0
    assert (finished["t5"] / "models" / "0" / "generation_config.json").is_file()


def test_model_level_runs_do_not_touch_the_library(t5: Given, finished: dict[str, Path], tmp_path: Path) -> None:
    work = Path(shutil.copytree(finished["t5"], tmp_path / "t5"))
    before = files(work / "modules")
    composer.build_model(t5.recipe(work), 1)
    for kind in ("composed", "baseline"):
        assert composer.finetune_model(t5.recipe(work), kind, 1).fresh
    assert files(work / "modules") == before


def test_a_baseline_starts_from_the_pruned_and_a_composed_model_from_the_tuned(
    t5: Given, finished: dict[str, Path], tmp_path: Path
) -> None:
    from composer.tasks.loss import mean_loss
    from composer.workspace import Workspace

    recipe, space = t5.recipe(finished["t5"]), Workspace(t5.recipe(finished["t5"]))
    for kind, source in (("composed", "finetuned"), ("baseline", "pruned")):
        library = finished["t5"] / "modules" / source
        composer.build_model(recipe, 0, modules=library, output=tmp_path / kind)
        start = mean_loss(BaseModel(tmp_path / kind).load(), space.task, space.examples("valid"))
        done = composer.finetune_model(recipe, kind, 0)
        assert done.summary["first_loss"] == pytest.approx(start, rel=1e-6)


@pytest.mark.parametrize("family", ["t5", "distilbert"])
def test_same_seed_same_bytes(
    family: str, families: dict[str, Given], finished: dict[str, Path], tmp_path: Path
) -> None:
    torch.rand(7)
    families[family].do(tmp_path / "again")
    assert len(weights(tmp_path / "again")) > 20
    assert weights(tmp_path / "again") == weights(finished[family])
    for name in ("conf.json", "conf_prune.json"):
        assert (tmp_path / "again" / name).read_bytes() == (finished[family] / name).read_bytes()


def test_another_seed_changes_what_is_tuned_and_nothing_else(
    t5: Given, finished: dict[str, Path], tmp_path: Path
) -> None:
    t5.do(tmp_path, until("build_model"), seed=1)
    other, first = weights(tmp_path), weights(finished["t5"])
    pruned = {name for name in other if name.startswith("modules/pruned/")}
    assert {name: other[name] for name in pruned} == {name: first[name] for name in pruned}
    assert other["models/0/model.safetensors"] != first["models/0/model.safetensors"]
    assert not {n for n in other if n.startswith("modules/finetuned/")} <= first.keys()


def test_a_new_configuration_costs_only_its_new_nodes(t5: Given, folder: Path) -> None:
    before = {n: entry for n, entry in files(folder / "modules").items() if n.endswith(".safetensors")}
    conf = json.loads((folder / "conf.json").read_text())
    added = dict(conf["configurations"][0])
    changed = "decoder.block.1.layer.2.DenseReluDense.wi"
    added[changed] = 0.75
    conf["configurations"].append(added)
    (folder / "conf.json").write_text(json.dumps(conf))
    composer.generate_scheme(t5.recipe(folder), force=True)

    pruned = composer.prune(t5.recipe(folder))
    assert (pruned.fresh, pruned.summary["made"]) == (True, 1)
    tuned = composer.finetune_blocks(t5.recipe(folder))
    assert tuned.summary["tuned"] == 2  # the projection, and the feed-forward around it
    after = {n: entry for n, entry in files(folder / "modules").items() if n.endswith(".safetensors")}
    assert {name: after[name] for name in before} == before
    new = after.keys() - before.keys()
    assert sorted(name.split("/")[0] for name in new) == ["finetuned", "finetuned", "pruned"]
    # The models of the configurations that were there already are still current.
    assert not composer.build_model(t5.recipe(folder), 0).fresh
    assert not composer.finetune_model(t5.recipe(folder), "composed", 0).fresh
    assert composer.build_model(t5.recipe(folder), 2).fresh


def test_nothing_in_a_block_tells_where_it_was_made(t5: Given, finished: dict[str, Path]) -> None:
    traces = [socket.gethostname(), str(finished["t5"]), str(t5.model), str(t5.data), str(Path.home())]
    for source in ("pruned", "finetuned"):
        library = Library(finished["t5"] / "modules" / source)
        for address in library.addresses():
            data = library.path(address).read_bytes()
            header = data[8 : 8 + int.from_bytes(data[:8], "little")].decode()
            assert not [trace for trace in traces if trace in header]
            assert json.loads(header)["__metadata__"].keys() == {"lineage"}
            assert library.get(address).lineage["base"] == BaseModel(t5.model).fingerprint


def test_configurations_that_prune_nothing_give_the_base_model(t5: Given, tmp_path: Path) -> None:
    t5.do(tmp_path, until("build_model"), attention=[0.0], linear=[0.0])
    saved = load_file(tmp_path / "models" / "0" / "model.safetensors")
    for name, weight in load_file(t5.model / "model.safetensors").items():
        assert torch.equal(saved[name], weight)
    assert composer.finetune_model(t5.recipe(tmp_path), "composed", 0).fresh


@pytest.mark.parametrize("levels", [["module"], ["layer"], ["module", "sublayer", "layer"]])
def test_every_choice_of_block_levels_composes(levels: list[str], t5: Given, tmp_path: Path) -> None:
    t5.do(tmp_path, until("build_model"), block_levels=levels)
    rates = json.loads((tmp_path / "conf.json").read_text())["configurations"][0]
    saved = load_file(tmp_path / "models" / "0" / "model.safetensors")
    zeros = {path: int((saved[f"{path}.weight"] == 0).sum()) for path in rates if f"{path}.weight" in saved}
    assert zeros == {path: round(rates[path] * saved[f"{path}.weight"].numel()) for path in zeros}


def test_predictions_are_those_of_the_model(
    families: dict[str, Given], finished: dict[str, Path], tmp_path: Path
) -> None:
    texts = ["the old man film very good", "the red dog film very bad"]
    given = families["distilbert"]
    saved = finished["distilbert"] / "models" / "0"
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    wanted = []
    for text in texts:
        shares = model.eval()(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].detach()
        wanted.append(f"{('negative', 'positive')[int(shares.argmax())]} ({float(shares.max()):.2f})")
    assert composer.predict(given.recipe(finished["distilbert"]), saved, texts) == wanted
    translated = composer.predict(families["t5"].recipe(tmp_path), finished["t5"] / "models" / "0", ["the man"])
    assert len(translated) == 1


def test_a_model_folder_that_is_not_there(t5: Given, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing: no such model folder"):
        composer.predict(t5.recipe(tmp_path), tmp_path / "nothing", ["a"])
    with pytest.raises(ModelError, match="nothing: no such model folder"):
        composer.evaluate(t5.recipe(tmp_path), [tmp_path / "nothing"])
