"""Documentation that cannot drift: help texts, and the README's commands."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from composer.cli.app import call

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
