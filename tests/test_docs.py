"""Documentation that cannot drift: help texts, and the README's commands."""

from __future__ import annotations

import ast
import contextlib
import html
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from composer.cli.app import call
from tests.conftest import install
from tests.test_imports import ORDER

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def tour() -> list[str]:
    """The tour's commands, in order: lines after `$ ` in its console blocks."""
    section = README.split("## A five-minute tour")[1].split("\n## ")[0]
    return [
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def script(name: str) -> Any:
    """A script of ``docs/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


def test_the_command_reference_is_what_help_prints() -> None:
    wanted = script("make_commands").text()
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == wanted, "run `make docs`"


def test_the_picture_of_the_flow_is_what_its_script_draws() -> None:
    wanted = script("make_flow").picture()
    assert (ROOT / "docs" / "flow.svg").read_text(encoding="utf-8") == wanted, "run `make docs`"


def test_the_picture_of_the_flow_shows_every_room_and_its_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = " ".join(re.findall(r">([^<>]+)</text>", (ROOT / "docs" / "flow.svg").read_text(encoding="utf-8")))
    for room in (ROOT / "composer").glob("*/__init__.py"):
        first = (ast.get_docstring(ast.parse(room.read_text(encoding="utf-8"))) or "").splitlines()[0].replace("`", "")
        assert f" {room.parent.name}/ " in f" {shown}"
        assert html.escape(first) in shown
    flow = script("make_flow")
    monkeypatch.setattr(flow, "UNDER", flow.UNDER[:-1])
    with pytest.raises(SystemExit, match=r"places .*composer/ has .*'demo'"):
        flow.picture()


def test_text_in_the_picture_of_the_flow_stays_in_its_box() -> None:
    """In the widest font that it names, and no two lines on one another."""
    fonts = {name: FontProperties(family=f"DejaVu Sans{name}", size=1) for name in ("", " Mono")}
    root = ElementTree.fromstring((ROOT / "docs" / "flow.svg").read_text(encoding="utf-8"))
    boxes = [tuple(float(rect.get(k, 0)) for k in ("x", "y", "width", "height")) for rect in root.iter(f"{SVG}rect")]
    lines = []
    for text in root.iter(f"{SVG}text"):
        font = fonts[" Mono" if "Mono" in text.get("font-family", "") else ""].copy()
        font.set_weight(text.get("font-weight", "normal"))
        size = float(text.get("font-size", 0))
        width = TextPath((0, 0), text.text or "", prop=font, size=size).get_extents().width
        x, y = float(text.get("x", 0)), float(text.get("y", 0))
        x -= width if text.get("text-anchor") == "end" else 0
        around = [(bx, by, w, h) for bx, by, w, h in boxes if bx <= x <= bx + w and by <= y <= by + h]
        left, top, room, tall = min(around, key=lambda b: b[2] * b[3])
        assert left + 2 < x, text.text
        assert x + width < left + room - 2, text.text
        assert top < y - 0.7 * size, text.text
        assert y + 2 < top + tall, text.text
        lines.append((x, y - 0.8 * size, x + width, y + 0.1 * size, text.text))
    for i, (x, y, right, low, one) in enumerate(lines):
        for x2, y2, right2, low2, other in lines[:i]:
            assert right <= x2 or right2 <= x or low <= y2 or low2 <= y, (one, other)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_a_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert link.startswith("https://") or (ROOT / link).exists()


def test_the_tour_runs_as_it_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every command of the tour with its recipe, on the model and corpus that ship; fewer steps and examples."""
    commands = [c for c in tour() if c.startswith("compose ")]
    assert len(commands) >= 10
    recipe = re.search(r"```yaml\n# compose.yaml\n(.*?)```", README, re.DOTALL)
    assert recipe
    content = yaml.safe_load(recipe[1])
    content["finetune"] |= {"steps": 2, "batch_size": 8}
    content["block"] |= {"steps": 8}
    content |= {"train_size": 64, "valid_size": 16, "test_size": 8, "calibration_size": 32}
    with contextlib.chdir(tmp_path):
        Path("compose.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        for command in commands:
            assert call(shlex.split(command)[1:]) == 0, f"{command}\n{capfd.readouterr()}"
        assert "up to date" not in capfd.readouterr().out, "every command has something to do"
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "summary.png").is_file()


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
