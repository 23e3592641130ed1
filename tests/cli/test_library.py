"""`compose library`: on a real run of the smallest kind, through the command line."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any

import pytest

import composer
from composer.cli.app import PARTS, build_app
from composer.files.jsonfile import read_json, write_json

from .conftest import Compose

LIBRARY = PARTS["library"]
GIVEN = {"trainer": "least_squares", "attention": [0.5], "linear": [0.3], "calibration_size": 8}


@pytest.fixture(scope="module")
def made(t5_folder: Path, translation_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which blocks were pruned and tuned."""
    folder = tmp_path_factory.mktemp("library")
    places = {"model": str(t5_folder), "data": str(translation_data), "folder": str(folder)}
    recipe = composer.load_recipe(given={**places, **GIVEN}, file=False)
    composer.generate_config(recipe)
    composer.generate_scheme(recipe)
    composer.prune(recipe)
    composer.finetune_blocks(recipe)
    return folder


@pytest.fixture
def here(made: Path, compose: Compose) -> Path:
    """A copy of it, in the folder where commands are run."""
    return Path(shutil.copytree(made, Path.cwd(), dirs_exist_ok=True))


def answer(compose: Compose, *words: str) -> Any:
    result = compose("library", *words, "--json")
    assert (result.status, result.err) == (0, "")
    return json.loads(result.out)


def stored(name: str) -> int:
    return len([*Path("modules", name).glob("*.safetensors")])


def unnamed(folder: Path) -> str:
    """Take one block out of its record; its address."""
    (path,) = (folder / "modules" / "finetuned").glob("scheme-*.json")
    record = read_json(path)
    _, address = record["addresses"].popitem()
    write_json(path, record)
    return str(address)


@pytest.mark.parametrize("name", LIBRARY)
def test_each_command_explains_itself(name: str, compose: Compose) -> None:
    result = compose("library", name, "--help")
    assert result.status == 0
    assert LIBRARY[name][1] in result.out
    assert f"\nExample\n\n    compose library {name}" in result.out
    assert "--no-" not in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())


def test_the_help_lists_the_commands(compose: Compose) -> None:
    result = compose("library", "--help")
    assert re.findall(r"^│ ([a-z][a-z-]*) ", result.out, re.MULTILINE) == list(LIBRARY)
    assert all(line in result.out for _, line in LIBRARY.values())
    assert compose("library").out == result.out


@pytest.mark.parametrize("name", LIBRARY)
def test_a_line_of_the_list_is_the_first_of_the_docstring(name: str) -> None:
    module, _, attribute = LIBRARY[name][0].partition(":")
    text = getdoc(getattr(import_module(f"composer.cli.{module}"), attribute)) or ""
    assert text.splitlines()[0] == LIBRARY[name][1]
    for example in filter(None, map(str.strip, text.partition("\nExample\n")[2].splitlines())):
        build_app().parse_args(shlex.split(example)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    ("line", "problem"),
    {
        "lst": "unknown command 'lst'; did you mean 'list'? (see `compose library --help`)",
        "list x": "unexpected argument 'x' (see `compose library list --help`)",
        "list --foldr x": "unknown option '--foldr'; did you mean '--folder'? (see `compose library list --help`)",
        "show": "ADDRESS: nothing given (see `compose library show --help`)",
        "verify -p": "-p: nothing given (see `compose library verify --help`)",
        "verify -p nowhere no": "nowhere: no such folder; a library is needed here",
        "size": "modules: no library here; `compose prune` makes one",
        "list --folder x": "x/modules: no library here; `compose prune` makes one",
        "prune-unused --older-than -1": "--older-than: got -1; allowed: hours, 0 or more",
        "prune-unused --older-than nan": "--older-than: got nan; allowed: hours, 0 or more",
        "prune-unused --older-than day": "--older-than: got 'day'; allowed: a number",
    }.items(),
)
def test_what_cannot_be_used_is_one_line(line: str, problem: str, compose: Compose) -> None:
    result = compose("library", *line.split())
    assert (result.status, result.out) == (2, "")
    assert result.err.splitlines()[0] == f"error: {problem}"


def test_list(here: Path, compose: Compose) -> None:
    blocks = answer(compose, "list")["blocks"]
    assert {b["stage"] for b in blocks if b["library"] == "modules/pruned"} == {"pruned"}
    assert {b["level"] for b in blocks if b["library"] == "modules/finetuned"} == {"module", "sublayer"}
    (record,) = Path("modules/pruned").glob("scheme-*.json")
    for block in blocks:
        assert set(block["rates"]) <= {0.3, 0.5}
        assert block["bytes"] >= Path(block["library"], f"{block['address']}.safetensors").stat().st_size
        assert block["schemes"] == [record.name]
        assert (block["seconds"] is not None) == (block["stage"] == "tuned")

    shown = compose("library", "list")
    assert (shown.status, shown.err) == (0, "")
    assert all(block["address"][:12] in shown.out and block["path"] in shown.out for block in blocks)
    assert f"modules/pruned: {stored('pruned')} blocks of 1 scheme, " in shown.out


def test_which_library(here: Path, compose: Compose) -> None:
    pruned = answer(compose, "list", "-p", "modules/pruned")["blocks"]
    both = answer(compose, "list", "--modules", "modules/finetuned", "modules/pruned")["blocks"]
    assert len(pruned) == stored("pruned")
    assert (both[-len(pruned) :], len(both)) == (pruned, stored("pruned") + stored("finetuned"))
    Path("elsewhere").mkdir()
    for name in ("modules", "conf_prune.json"):
        Path(name).rename(f"elsewhere/{name}")
    moved = answer(compose, "list", "--folder", "elsewhere")["blocks"]
    assert [b["address"] for b in moved if b["library"] == "elsewhere/modules/pruned"] == [b["address"] for b in pruned]
    Path("compose.yaml").write_text("folder: elsewhere\n")
    assert answer(compose, "list")["blocks"] == moved


def test_show(here: Path, compose: Compose) -> None:
    blocks = answer(compose, "list", "-p", "modules/finetuned")["blocks"]
    block = next(b for b in blocks if (b["level"], b["path"]) == ("sublayer", "encoder.block.0.layer.1"))
    told = answer(compose, "show", block["address"])
    assert told["lineage"]["settings"]["trainer"] == "least_squares"
    assert [below["stage"] for below in told["made_from"]] == ["tuned", "tuned"]
    (variant,) = told["made_from"][0]["start"]
    fingerprint = read_json(here / "conf_prune.json")["fingerprint"]
    assert (variant["stage"], variant["base"], variant["start"]) == ("pruned", fingerprint, [])
    assert [mask["rate"] for mask in told["masks"]] == [pytest.approx(0.3, abs=0.01)] * 2

    shown = compose("library", "show", block["address"][:10])
    assert (shown.status, shown.err) == (0, "")
    assert f"base model {fingerprint[:12]}" in shown.out
    assert f"tuned sublayer {block['path']} at 0.3" in shown.out
    assert f"pruned module {variant['path']} at 0.3 ({variant['address'][:12]} in modules/pruned)" in shown.out
    for name in ["trainer least_squares", *(row["name"] for row in told["tensors"])]:
        assert name in shown.out


def test_verify(here: Path, compose: Compose) -> None:
    whole = answer(compose, "verify", "--quiet")
    assert whole["problems"] == []
    assert [row["library"] for row in whole["libraries"]] == ["modules/pruned", "modules/finetuned"]
    said = compose("library", "verify")
    assert said.status == 0
    assert f"modules/pruned: {stored('pruned')} blocks, all whole" in said.out

    damaged, missing = sorted(Path("modules/finetuned").glob("*.safetensors"))[:2]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    missing.unlink()
    result = compose("library", "verify", "--quiet")
    assert (result.status, result.out) == (2, "")
    assert [line.split(";")[0].partition(": its")[0] for line in result.err.splitlines()] == [
        f"error: {damaged}: damaged",
        f"error: {missing}: missing, but {next(missing.parent.glob('scheme-*')).name} names it",
    ]
    again = compose("library", "verify", "--json", "--quiet")
    assert (again.status, again.err) == (2, result.err)
    assert [f"error: {line}" for line in json.loads(again.out)["problems"]] == result.err.splitlines()


def test_prune_unused(here: Path, compose: Compose) -> None:
    address = unnamed(here)
    before = {path: path.read_bytes() for path in Path("modules").rglob("*") if path.is_file()}
    young = compose("library", "prune-unused")
    assert "0 blocks and 0 leftover files removed, 0 B" in young.out
    assert "1 block in no scheme stays: made or used within 24 h (--older-than)" in young.out

    planned = answer(compose, "prune-unused", "--older-than", "0", "--dry-run")
    assert [block["address"] for block in planned["blocks"]] == [address]
    assert (
        "1 block and 0 leftover files would be removed"
        in compose(*("library", "prune-unused", "--older-than", "0", "--dry-run")).out
    )
    assert {path: path.read_bytes() for path in Path("modules").rglob("*") if path.is_file()} == before

    done = answer(compose, "prune-unused", "--older-than", "0")
    assert (done["dry_run"], done["bytes"]) == (False, planned["bytes"])
    left = {path: path.read_bytes() for path in Path("modules").rglob("*") if path.is_file()}
    assert left == {path: content for path, content in before.items() if address not in path.name}
    assert answer(compose, "verify", "--quiet")["problems"] == []


def test_size(here: Path, compose: Compose) -> None:
    unnamed(here)
    told = answer(compose, "size")
    pruned, tuned = told["libraries"]
    assert (pruned["blocks"], pruned["unused"]["blocks"], tuned["unused"]["blocks"]) == (stored("pruned"), 0, 1)
    assert tuned["on_disk"] == sum(path.stat().st_size for path in Path("modules/finetuned").iterdir())
    (scheme,) = told["schemes"]
    assert scheme["blocks"] == scheme["alone"]["blocks"] == pruned["blocks"] + tuned["blocks"] - 1
    shown = compose("library", "size")
    assert shown.status == 0
    assert "modules/finetuned" in shown.out
    assert scheme["scheme"].removeprefix("scheme-")[:12] in shown.out
