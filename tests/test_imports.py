"""Who may import whom: imports go down only, and what must be quick to start loads nothing heavy."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import composer

PACKAGE = Path(composer.__file__).parent
CLI = PACKAGE.parent / "cli"

HEAVY = {"torch", "transformers", "matplotlib", "datasets", "accelerate", "sklearn", "sacrebleu"}

GROUND = {"errors", "registry", "outcome", "progress", "jsonfile", "fingerprint", "batches", "layout", "stats"}
PLAN = {"config", "generate", "scheme", "shapes"}
TOOLS = {
    "granularity",
    "cutting",
    "masks",
    "capture",
    "gram",
    "gradients",
    "calibration",
    "teacher",
    "running",
    "solve",
    "surgeon",
}
TOOLS |= {"library", "shelf", "upkeep", "waves", "executors", "cluster"}
FAMILIES = {"criteria", "models", "tasks", "trainers"}
"""Lowest first: each may import itself and what is below. `demo` holds only data and its makers."""
LAYERS: tuple[set[str], ...] = (GROUND, PLAN, TOOLS, FAMILIES | {"demo"}, {"stages"})
TOP = len(LAYERS)
"""Every other module of the package: recipe, steps, pipeline and what they are made of."""
LIGHT = GROUND | PLAN | {"recipe", "planning", "steps", "blocks", "pipeline", "__init__", "__main__", "hub"}
LIGHT |= {"library", "shelf", "upkeep", "waves", "executors", "cluster", "spread"}


def sources() -> Iterator[tuple[str, Path]]:
    """Module name (dotted, below ``composer``) and file of everything in the package and ``cli``."""
    for root, start in ((PACKAGE, ""), (CLI, "cli.")):
        for path in sorted(root.rglob("*.py")):
            yield start + ".".join(path.relative_to(root).with_suffix("").parts), path


def imports(name: str, path: Path, *, everywhere: bool) -> Iterator[str]:
    """Absolute names of what a module imports: at its top, or in functions too. Types do not count."""
    parents = ["composer", *name.split(".")]
    for node in _statements(ast.parse(path.read_text("utf-8")), everywhere=everywhere):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = parents[: len(parents) - node.level] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _statements(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not everywhere:
            continue
        yield child
        yield from _statements(child, everywhere=everywhere)


def inside(names: Iterator[str]) -> set[str]:
    """Names below ``composer`` of the imports that are ours."""
    return {name.removeprefix("composer.") for name in names if name.startswith("composer.")}


def layer(name: str) -> int:
    first = name.split(".")[0]
    if first == "cli":
        return TOP + 1
    return next((i for i, members in enumerate(LAYERS) if first in members), TOP)


MODULES = dict(sources())


def test_every_module_of_the_package_is_looked_at() -> None:
    assert {"scheme", "models.t5", "stages.tune_blocks", "recipe", "__init__"} <= set(MODULES)
    for below, above in pairwise(LAYERS):
        assert not below & above
        assert all((PACKAGE / f"{m}.py").is_file() or (PACKAGE / m).is_dir() for m in below | above)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name: str) -> None:
    if name in ("__init__", "__main__"):
        return  # the public face, which only points to the steps
    for other in inside(imports(name, MODULES[name], everywhere=True)):
        assert layer(other) <= layer(name), f"{name} imports {other}"
        if layer(name) == 0:
            assert layer(other) == 0


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("stages.")])
def test_a_stage_imports_no_other_stage(name: str) -> None:
    own = name.split(".")[1]
    for other in inside(imports(name, MODULES[name], everywhere=True)):
        if other.startswith("stages"):
            assert other.split(".")[1] == own, f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] in FAMILIES])
def test_a_plugin_family_imports_no_other(name: str) -> None:
    own = name.split(".")[0]
    others = {other.split(".")[0] for other in inside(imports(name, MODULES[name], everywhere=True))}
    assert not (others & FAMILIES) - {own}


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[0] in LIGHT | {"cli"} or n.endswith("__init__")])
def test_what_must_start_quickly_imports_nothing_heavy_at_its_top(name: str) -> None:
    top = {full.split(".")[0] for full in imports(name, MODULES[name], everywhere=False)}
    assert not top & HEAVY
    if layer(name) > 0:
        assert "networkx" not in top


def test_there_are_no_import_cycles() -> None:
    needed = {name: _targets(inside(imports(name, path, everywhere=False))) for name, path in MODULES.items()}
    edges = {name: (needs & set(MODULES)) - {name} for name, needs in needed.items()}
    done: set[str] = set()
    while ready := {name for name, needs in edges.items() if name not in done and needs <= done}:
        done |= ready
    assert sorted(set(edges) - done) == []


def _targets(names: set[str]) -> set[str]:
    """Modules behind imported names: ``scheme.Node`` stands in ``scheme``; a package in its ``__init__``."""
    both = names | {name.rpartition(".")[0] for name in names}
    return both | {f"{name}.__init__" for name in both if f"{name}.__init__" in MODULES}


QUICK = [
    "composer",
    "composer.config",
    "composer.scheme",
    "composer.recipe",
    "composer.models.base",
    "composer.library",
    "composer.upkeep",
]


@pytest.mark.parametrize("names", [QUICK, ["composer.steps"], ["composer.pipeline"], ["composer.cli.app"]])
def test_quick_modules_load_nothing_heavy(names: list[str]) -> None:
    if any(importlib.util.find_spec(name) is None for name in names):
        pytest.skip("not there")
    heavy = sorted(HEAVY | {"networkx"})
    code = f"import sys, {', '.join(names)}; print(*(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
    assert done.stderr == ""


def test_everything_public_is_there() -> None:
    for name in composer.__all__:
        where = composer._WHERE.get(name)
        if where is None or importlib.util.find_spec(f"composer.{where}") is not None:
            assert getattr(composer, name) is not None
    assert set(composer.__all__) <= set(dir(composer))
    with pytest.raises(AttributeError, match="module 'composer' has no attribute 'nothing'"):
        _ = composer.nothing
