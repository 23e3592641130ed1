"""Which files results go to, what a refusal costs, and one bad line of many."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import composer
from composer.errors import DataError, ModelError, OutputError


def recipe(folder: Path, data: Path, **more: Any) -> composer.Recipe:
    return composer.load_recipe(given={"folder": str(folder), "data": str(data), "prefix": "", **more}, file=False)


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "results").iterdir())


@pytest.fixture
def alike(t5_folder: Path, tmp_path: Path) -> list[Path]:
    """Three models in folders that are called alike."""
    return [shutil.copytree(t5_folder, tmp_path / name / "0") for name in "abc"]


def test_folders_that_are_called_alike_get_names_that_differ(
    alike: list[Path], translation_data: Path, tmp_path: Path
) -> None:
    done = composer.evaluate(recipe(tmp_path, translation_data), alike)
    assert results(tmp_path) == ["a-0.json", "b-0.json", "c-0.json"]
    assert [result["model"] for result in done.summary["results"]] == [str(path) for path in alike]
    assert not composer.evaluate(recipe(tmp_path, translation_data), alike).fresh


def test_a_model_that_is_named_twice_is_measured_once_and_shadows_no_other(
    alike: list[Path], translation_data: Path, tmp_path: Path
) -> None:
    weights = load_file(alike[1] / "model.safetensors")
    save_file({name: 2 * w for name, w in weights.items()}, alike[1] / "model.safetensors", metadata={"format": "pt"})
    done = composer.evaluate(recipe(tmp_path, translation_data), [alike[0], alike[0], alike[1]])
    first, again, other = done.summary["results"]
    assert results(tmp_path) == ["a-0.json", "b-0.json"]
    assert first == again
    assert (other["model"], other["loss"] != first["loss"]) == (str(alike[1]), True)


def test_the_first_of_some_models_is_not_called_the_base(
    alike: list[Path], translation_data: Path, tmp_path: Path
) -> None:
    composer.evaluate(recipe(tmp_path, translation_data), alike[:1])
    assert results(tmp_path) == ["0.json"]
    composer.evaluate(recipe(tmp_path, translation_data, model=str(alike[1])), [alike[1]])
    assert results(tmp_path) == ["0.json", "base.json"]


def test_a_refusal_comes_before_anything_is_measured(alike: list[Path], translation_data: Path, tmp_path: Path) -> None:
    composer.evaluate(recipe(tmp_path, translation_data), alike[1:2], output=tmp_path / "results" / "b-0.json")
    other = recipe(tmp_path, translation_data, test_size=3)
    with pytest.raises(OutputError, match=r"b-0\.json: exists and was made from other inputs"):
        composer.evaluate(other, alike)
    assert results(tmp_path) == ["b-0.json"]


def test_what_was_measured_before_a_failure_is_named(alike: list[Path], translation_data: Path, tmp_path: Path) -> None:
    weights = load_file(alike[2] / "model.safetensors")
    weights["shared.weight"][0, 0] = float("nan")
    save_file(weights, alike[2] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"'shared\.weight' is not finite") as error:
        composer.evaluate(recipe(tmp_path, translation_data), alike)
    assert error.value.problems[1:] == tuple(f"measured before that: {tmp_path}/results/{n}-0.json" for n in "ab")


@pytest.mark.parametrize("kind", ["the folder itself", "one above it", "through a link"])
def test_nothing_is_written_over_what_is_read(
    kind: str, t5_folder: Path, translation_data: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(t5_folder, tmp_path / "above" / "base")
    (tmp_path / "link").symlink_to(base, target_is_directory=True)
    output = {"the folder itself": base, "one above it": base.parent, "through a link": tmp_path / "link"}[kind]
    given = recipe(
        tmp_path / "run", translation_data, model=str(base), attention=[0.5], linear=[0.5], trainer="least_squares"
    )
    composer.generate_config(given)
    composer.generate_scheme(given)
    composer.prune(given)
    composer.finetune_blocks(given)
    before = (base / "model.safetensors").read_bytes()
    for force in (False, True):
        with pytest.raises(OutputError, match=r"-o/--output: .* this run reads .*name a folder that it does not read"):
            composer.build_model(given, 0, output=output, force=force)
    assert (base / "model.safetensors").read_bytes() == before


def test_a_run_folder_that_is_a_link_names_its_model_rightly(t5_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "deep" / "er", target_is_directory=True)
    shutil.copytree(t5_folder, tmp_path / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        composer.generate_config(composer.load_recipe(given={"model": "base", "folder": "run"}, file=False))
    said = json.loads((tmp_path / "run" / "conf.json").read_text())["model"]
    assert (tmp_path / "deep" / "er" / said).resolve() == (tmp_path / "base").resolve()
    composer.generate_scheme(composer.load_recipe(given={"folder": str(tmp_path / "run")}, file=False))


def test_a_blank_text_has_a_blank_answer(t5_folder: Path) -> None:
    given = composer.load_recipe(given={"prefix": ""}, file=False)
    answers = composer.predict(given, t5_folder, ["", "a man sees", "  "])
    assert answers == ["", composer.predict(given, t5_folder, ["a man sees"])[0], ""]
    assert composer.predict(given, t5_folder, [""]) == [""]


def test_one_bad_line_costs_one_line(bert_folder: Path) -> None:
    notes: list[str] = []

    class Notes(composer.Progress):
        def note(self, message: str) -> None:
            notes.append(message)

    given = composer.load_recipe(given={"task": "masked_language_model"}, file=False)
    masked = masked_model(bert_folder)
    answers = composer.predict(given, masked, ["a [MASK] sees", "no mask"], progress=Notes())
    assert answers[0]
    assert answers[1] == ""
    assert "no mask" in notes[0]
    with pytest.raises(DataError, match=r"no \[MASK\] in it"):
        composer.predict(given, masked, ["no mask"])


def masked_model(folder: Path) -> Path:
    """A masked language model of the same sizes, beside ``folder``."""
    from transformers import BertConfig

    from tests.conftest import VOCABULARY, make_folder

    made = folder.parent / "masked"
    if not made.is_dir():
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = BertConfig(**sizes, vocab_size=VOCABULARY, max_position_embeddings=32, pad_token_id=0)
        make_folder(made, "BertForMaskedLM", config, "[CLS] $A [SEP]")
    return made
