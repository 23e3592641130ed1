"""Every example configuration is a test case: it loads, resolves and makes a scheme."""

from __future__ import annotations

from pathlib import Path

import pytest

from composer.models.folder import BaseModel
from composer.scheme.building import build_scheme
from composer.scheme.configurations import read_configurations, resolve
from composer.scheme.generate import generate

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "schemes").rglob("*.json"))
pytestmark = pytest.mark.usefixtures("legacy_package")


def model_for(path: Path) -> BaseModel:
    models = ("distilbert", "legacy-seq2seq")
    name = next((model for model in models if path.name.startswith(model.split("-")[0])), "t5-small")
    return BaseModel(Path(__file__).parent / "configs" / name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_makes_a_scheme_in_which_something_is_shared(path: Path) -> None:
    layout = model_for(path).layout
    rates = resolve(read_configurations(path), layout, where=path.name)
    scheme = build_scheme(rates, layout, model="base", fingerprint="0" * 64)
    assert len(scheme.roots) == len(rates) >= 3
    leaves = scheme.sharing(layout)[0]
    assert leaves.blocks < leaves.uses


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_readme_of_the_examples_names_it(path: Path) -> None:
    assert f"`{path.name}`" in (ROOT / "schemes" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["t5-small", "legacy"])
def test_the_generated_examples_are_what_their_commands_make(name: str) -> None:
    layout = model_for(Path(name)).layout
    default = read_configurations(ROOT / "schemes" / f"{name}-default.json")
    assert default.configurations == generate(layout)
    drawn = read_configurations(ROOT / "schemes" / f"{name}-overlapped.json")
    assert drawn.configurations == generate(layout, attention=[0.25, 0.5], linear=[0.3, 0.5, 0.7], draws=8, seed=1)
