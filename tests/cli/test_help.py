"""Help: complete, in order, quick, and never out of step with what the library accepts."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from composer import __version__
from composer.cli import options, training_options
from composer.cli.app import COMMANDS, build_app
from composer.cli.choose import TIMING, WISHES
from composer.recipe import BlockOptions, ModelOptions, Recipe
from composer.steps.run import BEST
from composer.tasks.data.options import DataOptions

from .conftest import Compose

ORDER = [
    *("download", "generate-config", "choose", "generate-scheme", "show", "plan"),
    *("prune", "finetune", "build-model", "shrink", "simplify", "merge"),
    *("evaluate", "export", "speed", "predict", "plot", "assess", "masks", "compare"),
    *("run", "demo"),
    "library",
]
HEAVY = ("torch", "transformers", "datasets", "matplotlib", "networkx")


def function(name: str) -> Any:
    """What a command's help is the docstring of: a function, or a file of commands."""
    place, _, attribute = COMMANDS[name][0].partition(":")
    module = import_module(f"composer.cli.{place}")
    return getattr(module, attribute) if attribute else module


def examples(name: str) -> list[str]:
    text = inspect.getdoc(function(name)) or ""
    return [line.strip() for line in text.partition("\nExample\n")[2].splitlines() if line.strip()]


def loaded_by(*words: str, folder: Path) -> tuple[int, list[str]]:
    """Exit status of a command line in a fresh Python, and which heavy packages it imported."""
    code = (
        "import sys; from composer.cli.app import call; status = call(sys.argv[1:]); "
        f"print(status, *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=True)
    status, *heavy = done.stderr.split()
    return int(status), heavy


def test_the_top_lists_commands_in_the_order_of_the_work(compose: Compose) -> None:
    result = compose("--help")
    assert result.status == 0
    assert re.findall(r"^│ ([a-z][a-z-]*) ", result.out, re.MULTILINE) == ORDER
    assert all(line in result.out for _, line in COMMANDS.values())
    assert result.err == ""


def test_no_words_at_all_show_the_help(compose: Compose) -> None:
    assert compose().out == compose("--help").out


def test_version(compose: Compose) -> None:
    assert compose("--version").out == f"{__version__}\n"


@pytest.mark.parametrize("name", ORDER)
def test_each_command_explains_itself(name: str, compose: Compose) -> None:
    result = compose(name, "--help")
    assert result.status == 0
    assert COMMANDS[name][1] in result.out
    assert "\nExample\n" in result.out
    assert f"    compose {name}" in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())


@pytest.mark.parametrize("name", ORDER)
def test_the_line_at_the_top_is_the_first_of_the_docstring(name: str) -> None:
    assert (inspect.getdoc(function(name)) or "").splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize("example", [line for name in ORDER for line in examples(name)])
def test_examples_can_be_parsed(example: str) -> None:
    words = shlex.split(example.partition(" < ")[0])
    assert words[0] == "compose"
    build_app().parse_args(words[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([name, "--help"] for name in ("run", "prune"))])
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    assert loaded_by(*words, folder=tmp_path) == (0, [])


def test_planning_imports_nothing_heavy(tmp_path: Path, t5_folder: Path) -> None:
    assert loaded_by("generate-config", "-m", str(t5_folder), folder=tmp_path) == (0, [])
    assert loaded_by("generate-scheme", folder=tmp_path) == (0, [])
    status, heavy = loaded_by("show", folder=tmp_path)
    assert status == 0
    assert not {"torch", "transformers", "datasets"} & set(heavy)


def test_data_flags_are_the_fields_of_the_data_options() -> None:
    assert {field.name for field in fields(options.Data)} == {*DataOptions.model_fields} - {"seed"}


def test_every_option_of_a_recipe_has_a_flag() -> None:
    flags: set[str] = set()
    for part in (options.DATA, options.MACHINE, training_options.TRAINING, training_options.BLOCK_TRAINING):
        flags |= part.given().keys()
    flags |= training_options.COMPARING.given().keys() | options.GENERATING.given().keys()
    flags |= WISHES.given().keys() | TIMING.given().keys()
    # Single flags, and the folder, which `run -o` gives.
    flags |= {
        "model",
        "config",
        "criterion",
        "dead_columns",
        "sweep",
        "block_levels",
        "folder",
        "card_data",
        "shrink",
        "search",
        "rerank",
        "beside",
        "unstructured",
    }
    flags |= {"movement"}  # its steps are those of `prune`
    flags.add("new_head")  # of every command
    assert flags == {*Recipe.model_fields}


def test_flags_of_the_parts_are_fields_of_the_parts() -> None:
    assert training_options.TRAINING.given()["finetune"].keys() <= {*ModelOptions.model_fields}
    assert training_options.TRAINING.for_blocks()["block"].keys() <= {*BlockOptions.model_fields}
    assert training_options.BLOCK_TRAINING.given()["block"].keys() <= {*BlockOptions.model_fields}


def test_defaults_in_the_help_are_the_recipe_s(compose: Compose) -> None:
    said = " ".join(compose("run", "--help").out.replace("│", " ").split())
    for field in fields(options.Data):
        default = DataOptions.model_fields[field.name].default
        if isinstance(default, (str, int)):
            flag = f"--{field.name.replace('_', '-')}"
            assert re.search(rf"{flag} [A-Z]+ [^\[]*\[{default}\]", said), flag
    recipe = Recipe()
    shown = {
        "--attention": " ".join(map(str, recipe.attention)),
        "--linear": " ".join(map(str, recipe.linear)),
        "--block-levels": ",".join(recipe.block_levels),
        "--criterion": BEST["criterion"],
        "--trainer": BEST["trainer"],
        "--block-batch-size": "--batch-size",
        "--finish": recipe.finish,
        "--epochs": f"{recipe.finetune.epochs:g}",
        "--batch-size": str(recipe.finetune.batch_size),
        "--learning-rate": str(recipe.finetune.learning_rate),
        "--precision": recipe.precision,
        "--device": recipe.device,
        "--seed": str(recipe.seed),
    }
    for flag, default in shown.items():
        assert re.search(rf"{flag} [^\[]*\[{re.escape(default)}\]", said), flag
