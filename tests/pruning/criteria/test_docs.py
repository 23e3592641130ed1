"""docs/criteria.md: the table is the registry's, and the example of a new criterion works as it stands."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

import composer
from composer.pruning.criteria import CRITERIA
from composer.scheme.configurations import Configurations
from composer.scheme.shapes import KINDS

PAGE = (Path(__file__).parents[3] / "docs" / "criteria.md").read_text(encoding="utf-8")


def table(title: str) -> list[list[str]]:
    """Cells of the rows below a title."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_says_what_each_criterion_needs_and_takes() -> None:
    rows = table("Criteria")
    assert [names(row[0]) for row in rows] == [[name] for name in CRITERIA.names()]
    for name, _, needs, shapes, _ in rows:
        criterion = CRITERIA.get(names(name)[0])
        assert set(names(needs)) == criterion.needs
        assert set(names(shapes)) == criterion.shapes


def test_every_granularity_is_explained() -> None:
    assert {name for row in table("Granularities") for name in names(row[0])} == set(KINDS)


def test_the_configuration_at_the_top_is_read() -> None:
    (first,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    Configurations.model_validate(json.loads(first))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The new criterion registered as the page says; its test's source."""
    file, row, test = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (found,) = re.findall(r'^ +"(\w+)": "([\w.:]+)",$', row, re.MULTILINE)
    module = found[1].partition(":")[0]
    path = tmp_path / "ria.py"
    path.write_text(file)
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, made)
    spec.loader.exec_module(made)
    monkeypatch.setitem(CRITERIA._table, *found)
    return test


def test_the_example_passes_its_own_test(example: str) -> None:
    found: dict[str, object] = {}
    exec(example, found)
    tests = [value for name, value in found.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()  # type: ignore[operator]


def test_the_example_prunes(example: str, distilbert_folder: Path, classification_data: Path, tmp_path: Path) -> None:
    given = {"model": str(distilbert_folder), "data": str(classification_data), "folder": str(tmp_path)}
    recipe = composer.load_recipe(given=given | {"criterion": "ria"}, file=False)
    (tmp_path / "conf.json").write_text('[{"*.lin1": 0.5, "*.lin2": {"rate": 0.5, "granularity": "2:4"}}]')
    composer.generate_scheme(recipe)
    assert composer.prune(recipe).summary["made"] == 4
