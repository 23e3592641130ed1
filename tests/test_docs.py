"""Documentation that cannot drift: help texts, and the README's commands."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from composer.cli.app import call
from tests.conftest import install
from tests.test_imports import ORDER

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = {"--steps": "2", "--calibration-size": "32", "--valid-size": "16", "--test-size": "8"}


def tour() -> list[str]:
    """The tour's commands, in order: lines after `$ ` in its console blocks."""
    section = README.split("## A five-minute tour")[1].split("\n## ")[0]
    return [
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def test_the_command_reference_is_what_help_prints() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs" / "make_commands.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == module.text(), "run `make docs`"


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_a_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_the_tour_runs_on_the_embedded_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every command of the tour, with few steps, the embedded model for the real one and its corpus for the data."""
    commands = [c for c in tour() if c.startswith("compose ")]
    assert len(commands) >= 8
    with contextlib.chdir(tmp_path):
        for command in commands:
            words = shlex.split(command)[1:]
            words = [
                SMALL.get(before, "demo" if before in ("-m", "--model", "--data") else word)
                for before, word in zip(["", *words], words, strict=False)
            ]
            assert call(words) == 0, f"{command}\n{capfd.readouterr()}"
    assert (tmp_path / "report.html").is_file()


PIECE = re.compile(r"(?:<!-- file: (\S+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
DECIMAL = re.compile(r"\d+\.\d+")


def test_the_tutorial_of_the_python_api_does_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs, in order, and prints what stands below it, but for the last digits of decimals."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed, shown = "", 0
    for file, language, text in PIECE.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8")):
        if file:
            Path(file).write_text(text, encoding="utf-8")
            if file == "pyproject.toml":
                install(monkeypatch, tmp_path, tmp_path / "site")
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, "docs/python.md", "exec"), names)
            printed = out.getvalue()
        else:
            wanted, got = ([*map(float, DECIMAL.findall(words))] for words in (text, printed))
            assert DECIMAL.sub("#", printed) == DECIMAL.sub("#", text)
            assert got == pytest.approx(wanted, rel=0.2), "another machine rounds otherwise"
            shown += 1
    assert shown >= 10


def test_the_design_lists_the_rooms_in_their_order() -> None:
    section = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## The house")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)/?`", row)]
    order = [name for name in ORDER if not name.startswith("__")]
    assert named == order
